//! Pages: sizes, marks, text alternative.

use graphs::{
    bare::Bare,
    schedule::{Pipeline, Schedule},
    simulate::{Costs, timeline},
};

use super::*;
use crate::view::{scene::Memory, scene::published};

fn scene(schedule: Schedule, stages: usize, microbatches: usize, comm: f64) -> Scene {
    let virtual_stages = schedule.virtual_stages().unwrap_or(1);
    let bare = Bare::of(&schedule, Pipeline { stages, virtual_stages, microbatches }).unwrap();
    let costs = Costs { forward: 1.0, input: 1.03, weight: 0.97, comm, handling: 0.0, pair: None };
    let step = Step {
        name: published(schedule.name()).into(),
        unit: Unit::Units,
        timeline: timeline(&bare, &costs).unwrap(),
        measured: None,
        memory: None,
        stages: Vec::new(),
        facts: vec![("bytes <sent>".into(), "1 GiB".into())],
    };
    let origin = vec![("made by".into(), "troupe viz --schedule".into())];
    Scene { title: "a {data} b".into(), steps: vec![step], origin }
}

#[test]
fn pages_stay_within_their_budgets_with_messages() {
    let small = page(&scene(Schedule::ZbH1, 16, 128, 0.1)).len();
    assert!(small <= 300_000, "{small} bytes");
    let large = page(&scene(Schedule::ZbH1, 16, 1_024, 0.1)).len();
    assert!(large <= 2_000_000, "{large} bytes");
}

#[test]
fn every_mark_is_filled_and_what_is_put_in_is_not_read_again() {
    let page = page(&scene(Schedule::OneFOneB, 2, 4, 0.0));
    assert!(page.contains("<title>a {data} b</title>"));
    for name in ["style", "figures", "surprises", "tables", "footer", "description", "script"] {
        assert!(!page.contains(&format!("{{{name}}}")), "{name}");
    }
    assert_eq!(page.matches("<script").count(), 2, "data cannot end its own element");
    assert!(!page.contains("http://") && !page.contains("https://"), "no network");
}

#[test]
fn the_tables_say_what_the_picture_shows() {
    let mut scene = scene(Schedule::OneFOneB, 4, 8, 0.0);
    let other = self::scene(Schedule::ZbH1, 4, 8, 0.0);
    scene.steps.extend(other.steps);
    let page = page(&scene);
    for part in [
        "<caption>Idle time by cause</caption>",
        "<th scope=\"col\">warm-up</th>",
        "<th scope=\"row\">B ZB-H1</th>",
        "<td>4 activations</td>",
        "class=\"better\">▼",
        "bytes &lt;sent&gt;",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn memory_is_told_in_bytes_where_it_is_known() {
    let mut scene = scene(Schedule::OneFOneB, 2, 2, 0.0);
    let rank = vec![(0.0, vec![1 << 30, 0]), (1.0, vec![1 << 30, 3 << 30]), (4.0, vec![0, 0])];
    let classes = vec!["weights".into(), "activations".into()];
    let limit = Some(8 << 30);
    scene.steps[0].memory = Some(Memory { classes, limit, ranks: vec![rank.clone(), rank] });
    let page = page(&scene);
    assert!(page.contains("<td>4.0 GiB</td>"));
    assert!(page.contains("\"classes\":[\"weights\",\"activations\"]"));
}
