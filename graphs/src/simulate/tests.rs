//! Simulated times against closed forms, and against another simulator where its results are.

use serde_json::Value;

use super::*;
use crate::{
    csv,
    schedule::{Interleaved, Pipeline, Schedule, tests::golden},
};

const EQUAL: Costs = Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, pair: None };

fn timing(
    schedule: &Schedule,
    stages: usize,
    virtual_stages: usize,
    microbatches: usize,
) -> Timing {
    let pipeline = Pipeline { stages, virtual_stages, microbatches };
    assert_eq!(schedule.fits(pipeline), Ok(()));
    let bare = Bare::of(schedule, pipeline).unwrap();
    simulate(&bare, &EQUAL).unwrap()
}

#[test]
fn makespans_are_those_of_the_literature() {
    let interleaved = Schedule::Interleaved1F1B(Interleaved::default());
    for (schedule, v, makespan, peak) in [
        (Schedule::GPipe, 1, 33.0, 8),
        (Schedule::OneFOneB, 1, 33.0, 4),
        (Schedule::ZbH1, 1, 27.0, 4),
        (Schedule::ZbH2, 1, 27.0, 7),
        (interleaved, 2, 57.0, 11),
        (Schedule::InterleavedZeroBubble, 2, 51.0, 8),
        (Schedule::ZbV, 2, 51.0, 8),
        (Schedule::DualPipeV, 2, 54.0, 9),
    ] {
        let timing = timing(&schedule, 4, v, 8);
        let most = timing.peak.iter().copied().max();
        assert_eq!((timing.makespan, most), (makespan, Some(peak)), "{schedule:?}");
    }
}

#[test]
fn zb_h1_has_a_third_of_the_bubble_at_the_memory_of_1f1b() {
    for (p, m) in [(2, 4), (4, 8), (8, 16), (8, 24)] {
        let timing = timing(&Schedule::ZbH1, p, 1, m);
        let own = timing.idle.iter().map(|idle| *idle as usize);
        assert!(own.eq(std::iter::repeat_n(p - 1, p)), "{timing:?}");
        assert!(timing.peak.iter().all(|&peak| peak == p), "{timing:?}");
    }
}

#[test]
fn zb_h2_and_zb_v_have_no_bubble_within_the_span_of_a_stage() {
    for (schedule, v) in [(Schedule::ZbH2, 1), (Schedule::ZbV, 2)] {
        for (p, m) in [(2, 4), (4, 8), (8, 16), (8, 24)] {
            let timing = timing(&schedule, p, v, m);
            assert!(timing.span.iter().all(|&span| span == (3 * m * v) as f64), "{timing:?}");
        }
    }
}

#[test]
fn a_way_between_ranks_delays_what_waits_and_nothing_else() {
    let bare = Bare::new(csv::read("0F0,0B0\n1F0,1B0").unwrap()).unwrap();
    let costs = Costs { forward: 1.0, input: 2.0, weight: 3.0, comm: 0.5, pair: None };
    let timing = simulate(&bare, &costs).unwrap();
    assert_eq!((timing.makespan, timing.span), (13.0, vec![13.0, 6.0]));
    assert_eq!((timing.idle, timing.peak), (vec![7.0, 7.0], vec![1, 1]));
}

/// The numbers of a field, one for each rank.
fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn costs(label: &str) -> Costs {
    let part = |letter: char| {
        let part = label.split('_').find_map(|part| part.strip_prefix(letter));
        part.map_or(0.0, |number| number.parse().unwrap())
    };
    Costs { forward: part('F'), input: part('I'), weight: part('W'), comm: part('c'), pair: None }
}

fn compare(bare: &Bare, costs: &Costs, expected: &Value, peak: &Value, name: &str) {
    let timing = simulate(bare, costs).unwrap();
    assert_eq!(timing.makespan, expected["makespan"].as_f64().unwrap(), "{name}");
    assert_eq!(timing.span, numbers(&expected["span"]), "{name}");
    let idle = timing.idle.iter().copied().fold(0.0, f64::max);
    assert_eq!(idle, expected["idle_max"].as_f64().unwrap(), "{name}");
    let counts: Vec<f64> = timing.peak.iter().map(|&peak| peak as f64).collect();
    assert_eq!(counts, numbers(peak), "{name}");
}

#[test]
fn times_and_peaks_equal_those_of_another_simulator() {
    let Some(path) = golden("reference_makespans.json") else { return };
    let Some(folder) = golden("pytorch-2.15-generated") else { return };
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for entry in all["entries"].as_array().unwrap() {
        let name = entry["file"].as_str().unwrap();
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let bare = Bare::new(csv::read(&text).unwrap()).unwrap();
        for (label, expected) in entry.as_object().unwrap() {
            if expected.is_object() {
                compare(&bare, &costs(label), expected, &entry["peak_inflight"], name);
                compared += 1;
            }
        }
    }
    assert!(compared >= 320, "compared only {compared}");
}

#[test]
fn times_equal_those_of_the_zero_bubble_scheduler() {
    let Some(folder) = golden("zero-bubble") else { return };
    let text = std::fs::read_to_string(folder.join("index.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for entry in all["entries"].as_array().unwrap() {
        let name = entry["file"].as_str().unwrap();
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let bare = Bare::new(csv::read(&text).unwrap()).unwrap();
        let price = |name: &str| entry["cost"][name].as_f64().unwrap();
        let costs = Costs {
            forward: price("F"),
            input: price("I"),
            weight: price("W"),
            comm: price("comm"),
            pair: None,
        };
        let expected = &entry["refsim"];
        compare(&bare, &costs, expected, &expected["peak_inflight"], name);
        compared += 1;
    }
    assert!(compared >= 150, "compared only {compared}");
}
