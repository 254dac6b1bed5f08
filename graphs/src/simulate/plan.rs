//! Simulates a whole plan: programs, then the optimizer phase.
//!
//! What is modelled:
//! - each actor does its program in order and *waits* at a Receive, as the runtime's actors do;
//!   what overlaps is different actors' work, and messages with anybody's work;
//! - the stage's and the experts' actor of a rank share its device; without GPUs, the actors of all
//!   ranks share the machine's cores, first come, first served;
//! - a message takes its links for `bytes / bandwidth`, all needed links at a time, and arrives a
//!   latency later; a rank's links carry one message after the other;
//! - a sender waits for a credit, which the receiver gives back when it takes the message;
//! - one replica and one expert rank stand for all on GPUs, where all ranks of a stage are alike.
//!
//! What is not: uneven loads of experts, congestion between other ranks' messages, and the time
//! that a program takes to read its input.

use std::collections::BTreeMap;

use crate::{
    check::{self, Deadlock},
    plan::Plan,
    price::{Phase, Prices},
    simulate::{Conditions, Outcome, RankOutcome, actor::NONE, engine::Engine, record::Record},
    timeline::{Cause, Kind, Span, Task, Timeline},
};

/// A simulated step.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulated {
    /// What each rank does when. Spans of the optimizer phase are numbered from the number of
    /// instructions on, three for each rank: reduce, update, gather.
    pub timeline: Timeline,
    /// The same in figures.
    pub outcome: Outcome,
}

/// Simulates one step of a plan.
///
/// # Errors
///
/// [`Deadlock`] if the plan hangs, which a plan that [`crate::lower()`] returned does not.
pub fn plan(plan: &Plan, prices: &Prices, conditions: &Conditions) -> Result<Simulated, Deadlock> {
    let (outcome, ranks) = run(plan, prices, conditions, true)?;
    let by_lane = |mut spans: Vec<Span>| {
        spans.sort_by(|a, b| a.lane.cmp(&b.lane).then(a.start.total_cmp(&b.start)));
        spans
    };
    let ranks = ranks.into_iter().map(|rank| by_lane(rank.spans.unwrap_or_default())).collect();
    Ok(Simulated { timeline: Timeline { ranks }, outcome })
}

/// Simulates one step of a plan for its figures alone, which takes less memory.
///
/// # Errors
///
/// As [`plan`].
pub fn outcome(plan: &Plan, prices: &Prices, conditions: &Conditions) -> Result<Outcome, Deadlock> {
    run(plan, prices, conditions, false).map(|(outcome, _)| outcome)
}

fn run(
    plan: &Plan,
    prices: &Prices,
    conditions: &Conditions,
    keeps_spans: bool,
) -> Result<(Outcome, Vec<Record>), Deadlock> {
    let mut engine = Engine::new(plan, prices, conditions, keeps_spans);
    if !engine.run() {
        check::deadlock(plan)?;
        let story = vec!["a program ends before what it sends is taken".to_string()];
        return Err(Deadlock { story, credit: None, shares: false });
    }
    let ends = engine.ends();
    let program = ends.iter().map(|end| end.0).fold(0.0, f64::max);
    let Engine { before, events, mut ranks, .. } = engine;
    let idle = idle_part(&ranks, program);
    let done: Vec<f64> = ends.iter().map(|end| end.0).collect();
    let (makespan, [slowest, last]) = optimize(plan, prices, conditions, &done, events, &mut ranks);
    let mut chain = followed(&before, events, ends[slowest].1);
    chain.extend([3 * slowest, 3 * last + 1, 3 * last + 2].map(|part| events + part));
    let outcome = Outcome {
        makespan,
        program,
        idle,
        tokens_per_second: plan.batch.tokens() as f64 / makespan,
        mfu: prices.model_flops / (prices.peak * makespan),
        ranks: ranks.iter().map(|rank| figures(rank, makespan)).collect(),
        chain,
    };
    Ok((outcome, ranks))
}

/// Part of the programs' time in which the ranks idle.
fn idle_part(ranks: &[Record], program: f64) -> f64 {
    let busy: f64 = ranks.iter().map(|rank| rank.busy).sum();
    1.0 - busy / (program * ranks.len() as f64)
}

/// The optimizer phase: gradients go to the holders of slices, all meet, updates, new weights go
/// round.
///
/// `done` says when the program of each rank is done, and gradients that left early have arrived.
/// Returns when the step ends, and the ranks that decided when the updates began and when they
/// ended.
fn optimize(
    plan: &Plan,
    prices: &Prices,
    conditions: &Conditions,
    done: &[f64],
    events: usize,
    ranks: &mut [Record],
) -> (f64, [usize; 2]) {
    let phases: Vec<Phase> = (0..ranks.len()).map(|stage| phase(plan, prices, stage)).collect();
    let reduced = |(done, phase): (&f64, &Phase)| done + phase.reduce;
    let reduced = done.iter().zip(&phases).map(reduced).zip(0..);
    let (verdict, slowest) = reduced.fold((0.0, 0), later);
    let mut last = (0.0, 0);
    for (stage, (rank, phase)) in ranks.iter_mut().zip(&phases).enumerate() {
        let id = events + 3 * stage;
        let task = |kind| Task { kind, chunk: stage, segment: 0, microbatch: 0 };
        let begin = done[stage];
        if phase.reduce > 0.0 {
            rank.send(id, task(Kind::Reduce), (begin, begin + phase.reduce), None);
        }
        let updated = verdict + phase.exchange + phase.update * conditions.slowness(stage);
        if phase.update > 0.0 {
            let wait = |_| (Cause::CoolDown, None);
            rank.compute(id + 1, task(Kind::Optimizer), (verdict, updated), wait);
        }
        let end = updated + phase.gather;
        if phase.gather > 0.0 {
            rank.send(id + 2, task(Kind::Gather), (updated, end), None);
        }
        last = later(last, (end, stage));
    }
    (last.0, [slowest, last.1])
}

/// The later of two ends; of equal ones, the first.
fn later(one: (f64, usize), other: (f64, usize)) -> (f64, usize) {
    if other.0 > one.0 { other } else { one }
}

/// The optimizer phase of a rank: both its actors'.
///
/// Without GPUs the actors of all ranks share the cores, so that no phase is shorter than all work
/// over all cores.
fn phase(plan: &Plan, prices: &Prices, stage: usize) -> Phase {
    let [one, other] = prices.phases[stage];
    let sum = |of: fn(&Phase) -> f64| of(&one) + of(&other);
    let (mut reduce, mut update) = (sum(|phase| phase.reduce), sum(|phase| phase.update));
    if let Some(cores) = prices.cores {
        let all = |of: fn(&Phase) -> f64| {
            let sum: f64 = prices.phases.iter().flatten().map(of).sum();
            let longest = prices.phases.iter().flatten().map(of).fold(0.0, f64::max);
            f64::max(sum * plan.mesh.data_ranks() as f64 / cores as f64, longest)
        };
        (reduce, update) = (all(|phase| phase.reduce), all(|phase| phase.update));
    }
    let (exchange, gather) = (sum(|phase| phase.exchange), sum(|phase| phase.gather));
    Phase { reduce, exchange, update, gather, ..Phase::default() }
}

/// What the last event waited for, back to the start, in the order of time.
fn followed(before: &[u32], events: usize, last: u32) -> Vec<usize> {
    let mut chain = Vec::new();
    let mut event = last;
    while event != NONE {
        chain.push(event as usize % events);
        event = before[event as usize];
    }
    chain.reverse();
    chain
}

fn figures(rank: &Record, makespan: f64) -> RankOutcome {
    let mut idle: BTreeMap<Cause, f64> = BTreeMap::new();
    for cause in Cause::ALL {
        if rank.idle[cause as usize] > 0.0 {
            idle.insert(cause, rank.idle[cause as usize]);
        }
    }
    if makespan > rank.free {
        *idle.entry(Cause::CoolDown).or_default() += makespan - rank.free;
    }
    let of = |cause: Cause| rank.idle[cause as usize];
    RankOutcome {
        span: rank.free - rank.start.unwrap_or(rank.free),
        busy: rank.busy,
        idle,
        sending: rank.sending,
        exposed: of(Cause::Transfer) + of(Cause::Link),
    }
}

#[cfg(test)]
mod tests;
