//! Terminal pictures against the lines of the literature's examples.

use graphs::{
    bare::Bare,
    csv,
    schedule::{Pipeline, Schedule},
    simulate::{Costs, timeline},
};

use super::*;
use crate::view::scene::published;

const PLAIN: Terminal = Terminal { width: 100, ascii: false, colour: false, memory: false };

fn step(name: &str, bare: &Bare) -> Step {
    let costs =
        Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
    Step {
        name: name.into(),
        unit: Unit::Units,
        timeline: timeline(bare, &costs).unwrap(),
        measured: None,
        memory: None,
        stages: Vec::new(),
        facts: Vec::new(),
    }
}

fn scene(schedules: &[Schedule], stages: usize, microbatches: usize) -> Scene {
    let pipeline = Pipeline { stages, virtual_stages: 1, microbatches };
    let steps = schedules
        .iter()
        .map(|schedule| step(published(schedule.name()), &Bare::of(schedule, pipeline).unwrap()));
    Scene { steps: steps.collect(), ..Scene::default() }
}

#[test]
fn one_f_one_b_and_zb_h1_stand_side_by_side_as_the_papers_draw_them() {
    let text = draw(&scene(&[Schedule::OneFOneB, Schedule::ZbH1], 4, 8), PLAIN);
    let expected = "\
1F1B    27.3 % idle, 33 units                ZB-H1   11.1 % idle, 27 units  (-18 %)
r0 FFFF······XXFXXFXXFXXFXX·XX·XX·XX         r0 FFFF···BWFBWFBWFBWFBWBWBWBW
r1 ·FFF····XXFXXFXXFXXFXXFXX·XX·XX··         r1 ·FFF··BFBWFBWFBWFBWFBWBWBWW
r2 ··FF··XXFXXFXXFXXFXXFXXFXX·XX····         r2 ··FF·BFBFBWFBWFBWFBWFBWBWWW
r3 ···FXXFXXFXXFXXFXXFXXFXXFXX······         r3 ···FBFBFBFBWFBWFBWFBWFBWWWW

F forward, B input gradient, W weight gradient, X both gradients, · idle; a column is 1 unit
";
    assert_eq!(text, expected);
}

#[test]
fn what_does_not_fit_beside_stands_below_and_ascii_is_enough() {
    let terminal = Terminal { width: 50, ascii: true, ..PLAIN };
    let text = draw(&scene(&[Schedule::OneFOneB, Schedule::ZbH1], 2, 4), terminal);
    let expected = "\
1F1B    20.0 % idle, 15 units
r0 FF..XXFXXFXX.XX
r1 .FXXFXXFXXFXX..

ZB-H1   7.7 % idle, 13 units  (-13 %)
r0 FF.BWFBWFBWBW
r1 .FBFBWFBWFBWW

";
    assert!(text.starts_with(expected) && text.is_ascii(), "{text}");
}

#[test]
fn what_is_wider_than_the_terminal_is_drawn_by_majority() {
    let scene = scene(&[Schedule::GPipe], 2, 40);
    let text = draw(&scene, Terminal { width: 44, ..PLAIN });
    let rows: Vec<&str> = text.lines().skip(1).take(2).collect();
    assert!(rows.iter().all(|row| row.chars().count() == 44), "{text}");
    // 123 units in 41 columns of three: 40 of F, then 80 of X.
    assert!(rows[0].starts_with("r0 FFFFFFFFFFFFF"), "{text}");
    assert!(rows[0].ends_with("XXX") && text.contains("the letter of most of it"), "{text}");
}

#[test]
fn memory_rises_to_the_warm_up_and_falls_at_the_end() {
    let scene = scene(&[Schedule::OneFOneB], 2, 3);
    let text = draw(&scene, Terminal { memory: true, ..PLAIN });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "r0 FF··XXFXX·XX");
    assert_eq!(lines[2], "   ▄████████▄▄▄ 2 held");
}

#[test]
fn colours_take_no_room() {
    let bare = Bare::new(csv::read("0F0,0B0").unwrap()).unwrap();
    let scene = Scene { steps: vec![step("one", &bare); 2], ..Scene::default() };
    let coloured = draw(&scene, Terminal { colour: true, ..PLAIN });
    assert!(coloured.contains("r0 \x1b[34mF\x1b[0m\x1b[35mXX\x1b[0m"), "{coloured}");
    let stripped = ["\x1b[34m", "\x1b[35m", "\x1b[0m"];
    let stripped = stripped.iter().fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(stripped, draw(&scene, PLAIN));
}
