//! Every schedule on every small pipeline against what the literature says of its time and memory.

use super::*;
use crate::{
    bare::Bare,
    check,
    passes::rising::rising,
    simulate::{Costs, Timing, simulate},
};

const EQUAL: Costs =
    Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, pair: None, handling: 0.0 };

/// All schedules, with the parameters that change their orders.
fn all() -> Vec<Schedule> {
    let mut all = Schedule::ALL.to_vec();
    let plus = Interleaved { extra_warmup: 1, ..Interleaved::PLAIN };
    let paired = Interleaved { paired: true, ..plus };
    let split = Interleaved { split_backward: true, ..paired };
    let wide = Interleaved { group: Some(6), ..paired };
    all.extend([plus, paired, split, wide].map(Schedule::Interleaved1F1B));
    let hybrids = [(true, None), (false, Some(6)), (true, Some(6))];
    all.extend(hybrids.map(|(split_pairs, group)| Schedule::Hybrid(Hybrid { split_pairs, group })));
    let limit = std::num::NonZeroU32::new(2).unwrap();
    all.push(Schedule::Automatic(Automatic { limit, ..Automatic::PLAIN }));
    all
}

/// Every pipeline of p 1 to 8, v 1 to 4, m 1 to 24.
fn pipelines() -> impl Iterator<Item = Pipeline> {
    let shapes = (1..=8).flat_map(|p| (1..=4).flat_map(move |v| (1..=24).map(move |m| (p, v, m))));
    shapes.map(|(stages, virtual_stages, microbatches)| Pipeline {
        stages,
        virtual_stages,
        microbatches,
    })
}

#[test]
fn whatever_fits_is_lawful_cannot_hang_and_keeps_its_closed_forms() {
    let (mut ran, mut exact) = (0, 0);
    let all = all();
    for pipeline in pipelines() {
        for schedule in all.iter().filter(|it| it.fits(pipeline).is_ok()) {
            let bare =
                Bare::of(schedule, pipeline).unwrap_or_else(|e| panic!("{schedule:?} {e:?}"));
            assert_eq!(bare.places(), schedule.places(pipeline));
            // The simulator runs the orders on paper with all credits first.
            let timing = simulate(&bare, &EQUAL)
                .unwrap_or_else(|hang| panic!("{schedule:?} {pipeline:?}: {hang}"));
            let credits = check::fewest_credits(&bare).unwrap();
            assert!(credits <= pipeline.microbatches);
            exact += usize::from(keeps(schedule, pipeline, &timing));
            ran += 1;
        }
    }
    assert!(ran > 4000 && exact >= 2000, "{ran} fit, {exact} have an exact time");
}

#[test]
fn all_but_looped_breadth_first_add_weight_gradients_in_rising_order() {
    for schedule in all() {
        for pipeline in pipelines().filter(|it| schedule.fits(*it).is_ok()) {
            let orders = schedule.orders(pipeline);
            let is_risen = orders.iter().all(|order| rising(order) == *order);
            let falls = schedule == Schedule::LoopedBfs && pipeline.microbatches > 1;
            assert_eq!(is_risen, !falls, "{schedule:?} {pipeline:?}");
        }
    }
}

/// Checks time and memory; says whether the time is one formula for this shape.
fn keeps(schedule: &Schedule, pipeline: Pipeline, timing: &Timing) -> bool {
    let about = format!("{schedule:?} {pipeline:?} {timing:?}");
    for (stage, &held) in timing.peak.iter().enumerate() {
        let (most, is_exact) = peak(schedule, pipeline, stage);
        assert!(
            if is_exact { held == most } else { held <= most },
            "stage {stage}: {most} {about}"
        );
    }
    let Pipeline { virtual_stages: v, microbatches: m, .. } = pipeline;
    let work = (3 * m * v) as f64;
    if let (Schedule::ZbV | Schedule::ZbH2, true) = (schedule, m >= 2 * pipeline.stages - 1) {
        assert!(timing.span.iter().all(|&span| span == work), "{about}");
    }
    match idle(schedule, pipeline) {
        (idle, true) => assert_eq!(timing.makespan, work + idle as f64, "{about}"),
        (idle, false) => assert!(timing.makespan <= work + idle as f64, "{idle} {about}"),
    }
    idle(schedule, pipeline).1
}

/// The most chunks that a stage holds, and whether that is exact.
fn peak(schedule: &Schedule, pipeline: Pipeline, stage: usize) -> (usize, bool) {
    let Pipeline { stages: p, virtual_stages: v, microbatches: m } = pipeline;
    let group = |group: Option<usize>| group.unwrap_or(p.min(m));
    let interleaved = |group: usize, extra| (v - 1) * group + 2 * (p - 1 - stage) + 1 + extra;
    let (most, is_exact) = match schedule {
        Schedule::GPipe | Schedule::LoopedBfs => (m * v, true),
        Schedule::OneFOneB => (p - stage, true),
        Schedule::Interleaved1F1B(rule) => {
            (interleaved(group(rule.group), rule.extra_warmup), true)
        }
        // A weight gradient that waits holds its activation; later stages have room for that.
        Schedule::Hybrid(rule) if rule.split_pairs => {
            (interleaved(group(rule.group), 1 + stage), false)
        }
        Schedule::Hybrid(rule) => (interleaved(group(rule.group), 1), true),
        Schedule::ZbH1 => (p, false),
        Schedule::ZbH2 => (2 * p - 1, false),
        Schedule::InterleavedZeroBubble => ((v - 1) * (m / (m / p).max(1)) + p, false),
        Schedule::ZbV => (2 * p, false),
        Schedule::DualPipeV => (2 * p + 1, false),
        Schedule::VHalf => (2 * (p / 2 + 1), false),
        Schedule::VMin => (2 * ((p + 1) / 3 + 1), false),
        Schedule::Automatic(rule) => (rule.limit.get() as usize * p, false),
        Schedule::Orders(_) => unreachable!("no rule"),
    };
    (most.min(m * v), is_exact)
}

/// Waiting of the busiest stage, in chunks, and whether that is exact.
fn idle(schedule: &Schedule, pipeline: Pipeline) -> (usize, bool) {
    let Pipeline { stages: p, virtual_stages: v, microbatches: m } = pipeline;
    let even = m >= p && m.is_multiple_of(p);
    match schedule {
        Schedule::GPipe | Schedule::OneFOneB => (3 * (p - 1), true),
        Schedule::LoopedBfs if m >= p => (3 * (p - 1), true),
        Schedule::Interleaved1F1B(rule) if even && !rule.paired && rule.group.is_none() => {
            (3 * (p - 1), true)
        }
        Schedule::ZbH1 | Schedule::InterleavedZeroBubble if even => (p - 1, true),
        Schedule::ZbH2 if m >= 2 * p => (p - 1, true),
        Schedule::Automatic(_) if even => (p - 1, false),
        Schedule::DualPipeV => (2 * (p - 1), false),
        Schedule::ZbV if m >= 2 * p => (p - 1, false),
        Schedule::VHalf | Schedule::VMin => (4 * p, false),
        _ => (6 * p * v, false),
    }
}
