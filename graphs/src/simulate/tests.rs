//! Simulated times against closed forms, and against another simulator where its results are.

use serde_json::Value;

use super::*;
use crate::{
    csv,
    schedule::{Automatic, Interleaved, Pipeline, Schedule, tests::golden},
};

const EQUAL: Costs =
    Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };

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
    let costs =
        Costs { forward: 1.0, input: 2.0, weight: 3.0, comm: 0.5, handling: 0.0, pair: None };
    let timing = simulate(&bare, &costs).unwrap();
    assert_eq!((timing.makespan, timing.span), (13.0, vec![13.0, 6.0]));
    assert_eq!((timing.idle, timing.peak), (vec![7.0, 7.0], vec![1, 1]));
}

#[test]
fn a_timeline_names_every_wait_and_idle_times_add_up() {
    let bare = Bare::new(csv::read("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1").unwrap()).unwrap();
    let costs =
        Costs { forward: 1.0, input: 2.0, weight: 3.0, comm: 0.5, handling: 0.0, pair: None };
    let timeline = timeline(&bare, &costs).unwrap();
    let waits = timeline.ranks.iter().map(|spans| {
        let waits = spans.iter().filter_map(|span| span.wait.map(|wait| (span.id, wait)));
        waits.map(|(id, wait)| (id, wait.since, wait.cause, wait.on)).collect::<Vec<_>>()
    });
    let expected = [
        vec![(2, 2.0, Cause::Data, Some((1, 5))), (3, 13.0, Cause::Data, Some((1, 7)))],
        vec![(4, 0.0, Cause::WarmUp, Some((0, 0)))],
    ];
    assert!(waits.eq(expected), "{timeline:?}");
    let timing = simulate(&bare, &costs).unwrap();
    assert_eq!(timing.makespan, timeline.makespan());
    for (rank, idle) in timing.idle.iter().enumerate() {
        assert_eq!(timeline.idle(rank, Lane::Compute).values().sum::<f64>(), *idle);
    }
    let drain = timeline.idle(1, Lane::Compute)[&Cause::CoolDown];
    assert_eq!(drain, timeline.makespan() - 13.5);
    let messages = timeline.ranks[0].iter().filter(|span| span.lane == Lane::Communication);
    assert!(messages.map(|span| (span.start, span.end)).eq([(1.0, 1.5), (2.0, 2.5)]));
}

#[test]
fn a_message_that_is_under_way_is_told_apart_from_one_that_is_not_made() {
    let text = "0F0,0F1,0F2,0F3,2F0,2F1,2F2,2F3\n1F0,1F1,1F2,1F3";
    let bare = Bare::new(csv::read(text).unwrap()).unwrap();
    for (comm, expected) in [
        (1.0, None),
        (1.5, Some(Wait { since: 4.0, cause: Cause::Transfer, on: Some((1, 8)) })),
        (2.5, Some(Wait { since: 4.0, cause: Cause::Data, on: Some((1, 8)) })),
    ] {
        let timeline = timeline(&bare, &Costs { comm, ..EQUAL }).unwrap();
        let waiting = timeline.ranks[0].iter().find(|span| span.id == 4).unwrap();
        assert_eq!(waiting.wait, expected, "{comm}");
    }
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
    Costs {
        forward: part('F'),
        input: part('I'),
        weight: part('W'),
        comm: part('c'),
        handling: 0.0,
        pair: None,
    }
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
            handling: 0.0,
            pair: None,
        };
        let expected = &entry["refsim"];
        compare(&bare, &costs, expected, &expected["peak_inflight"], name);
        compared += 1;
    }
    assert!(compared >= 150, "compared only {compared}");
}

/// Qi et al., arXiv:2401.10241, tables 4, 5 and 9: model, p, m, v; milliseconds of `F`, `I`, `W`
/// and of a message; bubble rates of 1F1B, ZB-1p and ZB-2p; samples a second of 1F1B and 1F1B-I.
type Published = (&'static str, [usize; 3], [f64; 4], [f64; 3], [f64; 2]);

#[rustfmt::skip]
const PUBLISHED: [Published; 12] = [
    ("1.5B", [8, 24, 3], [18.522, 18.086, 9.337, 0.601], [0.2431, 0.1585, 0.0433], [11.8, 13.1]),
    ("1.5B", [8, 32, 3], [18.513, 18.086, 9.331, 0.626], [0.1985, 0.1242, 0.0039], [12.5, 13.4]),
    ("1.5B", [8, 64, 3], [18.546, 18.097, 9.321, 0.762], [0.1240, 0.0674, 0.0026], [13.6, 13.9]),
    ("6.2B", [8, 24, 4], [29.718, 29.444, 19.927, 0.527], [0.2347, 0.1323, 0.0029], [3.50, 4.01]),
    ("6.2B", [8, 32, 4], [29.802, 29.428, 19.530, 0.577], [0.1898, 0.1045, 0.0022], [3.70, 4.08]),
    ("6.2B", [8, 64, 4], [29.935, 29.621, 19.388, 0.535], [0.1091, 0.0554, 0.0010], [4.03, 4.19]),
    ("14.6B", [16, 48, 3], [11.347, 11.248, 8.132, 0.377], [0.2552, 0.1397, 0.0066], [1.40, 1.54]),
    ("14.6B", [16, 64, 3], [11.307, 11.254, 8.101, 0.379], [0.2082, 0.1088, 0.0054], [1.49, 1.59]),
    ("14.6B", [16, 128, 3], [11.325, 11.308, 8.109, 0.378], [0.1251, 0.0576, 0.0028], [1.64, 1.66]),
    ("28.3B", [32, 96, 2], [10.419, 10.207, 7.715, 0.408], [0.2646, 0.1421, 0.0038], [0.76, 0.82]),
    ("28.3B", [32, 128, 2], [10.408, 10.204, 7.703, 0.408], [0.2168, 0.1106, 0.0029], [0.80, 0.85]),
    ("28.3B", [32, 256, 2], [10.402, 10.248, 7.698, 0.460], [0.1352, 0.0594, 0.0018], [0.88, 0.90]),
];

/// Part of a message's time for which it keeps both its ranks busy; see `docs/simulator.md`.
const HANDLING: f64 = 0.65;

fn profiled([forward, input, weight, comm]: [f64; 4], chunks: usize, handling: f64) -> Costs {
    let part = |time: f64| time / chunks as f64;
    Costs {
        forward: part(forward),
        input: part(input),
        weight: part(weight),
        comm,
        handling: handling * comm,
        pair: None,
    }
}

/// The longest stage: from its first start to its last end, as the paper takes it.
fn longest(bare: &Bare, costs: &Costs) -> f64 {
    simulate(bare, costs).unwrap().span.into_iter().fold(0.0, f64::max)
}

fn own(schedule: Schedule, stages: usize, virtual_stages: usize, microbatches: usize) -> Bare {
    Bare::of(&schedule, Pipeline { stages, virtual_stages, microbatches }).unwrap()
}

fn rate(bare: &Bare, times: [f64; 4], microbatches: usize) -> f64 {
    let cost = longest(bare, &profiled(times, 1, 0.0));
    let rate = 1.0 - microbatches as f64 * (times[0] + times[1] + times[2]) / cost;
    (rate * 1e4).round() / 1e4
}

#[test]
fn published_bubble_rates_of_1f1b_and_zb_1p_follow_from_our_orders() {
    for (model, [p, m, _], times, [one, zero, _], _) in PUBLISHED {
        assert_eq!(rate(&own(Schedule::OneFOneB, p, 1, m), times, m), one, "{model} m{m}");
        assert_eq!(rate(&own(Schedule::ZbH1, p, 1, m), times, m), zero, "{model} m{m}");
    }
}

/// The schedule for published times, with room for so many times `p` microbatches.
///
/// Table 3 of the paper: of `s b (34 h + 5 a s)` bytes a layer, `32 s b h` are kept for `W`; the
/// smallest model has `a s / h = 10 2/3`, the others have 8.
fn automatic(model: &str, times: [f64; 4], limit: u32) -> Schedule {
    let [forward, input, weight, comm] = times.map(|time| (time * 1000.0).round() as u32);
    let (freed, kept) = if model == "1.5B" { (166, 96) } else { (42, 32) };
    let limit = std::num::NonZeroU32::new(limit).unwrap();
    Schedule::Automatic(Automatic { forward, input, weight, comm, freed, kept, limit })
}

#[test]
fn all_36_published_bubble_rates_follow_from_our_orders() {
    for (model, [p, m, _], times, rates, _) in PUBLISHED {
        let [one, two] = [1, 2].map(|limit| automatic(model, times, limit));
        let ours = [Schedule::OneFOneB, one, two].map(|it| rate(&own(it, p, 1, m), times, m));
        assert_eq!(ours, rates, "{model} m{m}");
    }
}

#[test]
fn published_bubble_rates_follow_from_the_published_orders() {
    let Some(folder) = golden("zero-bubble/paper") else { return };
    let mut equal = 0;
    for (model, [p, m, _], times, rates, _) in PUBLISHED {
        for (name, published) in ["1F1B", "ZB-1p", "ZB-2p"].into_iter().zip(rates) {
            let path = folder.join(format!("{name}_{model}_p{p}_m{m}.compute.csv"));
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let bare = Bare::new(csv::read(&text).unwrap()).unwrap();
            assert_eq!(rate(&bare, times, m), published, "{name} {model} m{m}");
            equal += 1;
        }
    }
    assert!(equal >= 33, "only {equal}");
}

#[test]
fn the_measured_gain_of_interleaving_is_predicted_within_three_points() {
    for (model, [p, m, v], times, _, [one, interleaved]) in PUBLISHED {
        let gain = |handling: f64| {
            let plain = longest(&own(Schedule::OneFOneB, p, 1, m), &profiled(times, 1, handling));
            let rule = Schedule::Interleaved1F1B(Interleaved::default());
            let cut = longest(&own(rule, p, v, m), &profiled(times, v, handling));
            100.0 * (plain / cut - 1.0)
        };
        let measured = 100.0 * (interleaved / one - 1.0);
        let (free, handled) = (gain(0.0), gain(HANDLING));
        println!("{model} m{m}: measured {measured:.1}, free {free:.1}, handled {handled:.1}");
        assert!(free > measured + 3.0, "{model} m{m}: messages that cost nothing explain it too");
        assert!((handled - measured).abs() < 3.0, "{model} m{m}: {handled} for {measured}");
    }
}
