//! How much of what a rank waits for travels while it computes: hidden and exposed seconds.
//!
//! Counted by moments, not by messages: a moment in which something is on its way to a rank is
//! hidden if one of the rank's two actors computes, and exposed if neither does. That is how the
//! overlap of published traces is counted, and it cannot be talked up by sending in small pieces.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    plan::{Cargo, Plan},
    timeline::{Kind, Lane, Timeline},
};

/// What travels.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Carried {
    /// Rows to the experts and back, forward and backward.
    Experts,
    /// Activations and their gradients from stage to stage.
    Pipeline,
    /// Activations to the host and back.
    Copies,
    /// Weight gradients to the holders of their slices.
    Sums,
}

impl Carried {
    /// All of them.
    pub const ALL: [Carried; 4] =
        [Carried::Experts, Carried::Pipeline, Carried::Copies, Carried::Sums];

    /// What a cargo is.
    pub fn of(cargo: Cargo) -> Self {
        if cargo.fans_out() { Carried::Experts } else { Carried::Pipeline }
    }

    /// The name as reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Carried::Experts => "experts",
            Carried::Pipeline => "pipeline",
            Carried::Copies => "copies",
            Carried::Sums => "sums",
        }
    }
}

/// Seconds in which something travelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Travel {
    /// While the rank computed.
    pub hidden: f64,
    /// While it did not.
    pub exposed: f64,
}

impl Travel {
    /// Part of the time that was hidden; all of it if nothing travelled.
    pub fn part_hidden(self) -> f64 {
        let all = self.hidden + self.exposed;
        if all > 0.0 { self.hidden / all } else { 1.0 }
    }
}

/// The travels of one rank, or the sum over several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overlap {
    /// Over the whole program.
    pub whole: BTreeMap<Carried, Travel>,
    /// From the first backward computation on: without the warm-up.
    pub warm: BTreeMap<Carried, Travel>,
    /// From the first backward computation to the last forward one: the steady phase.
    pub steady: BTreeMap<Carried, Travel>,
}

/// Begin and end.
pub type Interval = (f64, f64);

/// What one rank did.
#[derive(Clone, Debug, Default)]
pub struct Busy {
    /// When one of its actors computed: whether backward, or else forward.
    pub computed: Vec<(bool, Interval)>,
    /// What was on its way to it, or from and to its host.
    pub travelled: Vec<(Carried, Interval)>,
}

impl Busy {
    /// Counts its travels.
    pub fn overlap(&self) -> Overlap {
        let compute = union(self.computed.iter().map(|it| it.1));
        let starts = self.computed.iter().filter(|it| it.0).map(|it| it.1.0);
        let ends = self.computed.iter().filter(|it| !it.0).map(|it| it.1.1);
        let first = starts.fold(f64::INFINITY, f64::min);
        let last = ends.fold(0.0, f64::max);
        let within = |from: f64, to: f64| -> BTreeMap<Carried, Travel> {
            let of = |carried: Carried| {
                let own = self.travelled.iter().filter(|it| it.0 == carried).map(|it| it.1);
                let cut = own.map(|(begin, end)| (begin.max(from), end.min(to)));
                let travel = union(cut.filter(|(begin, end)| begin < end));
                let all = length(&travel);
                let hidden = length(&both(&travel, &compute));
                (carried, Travel { hidden, exposed: all - hidden })
            };
            let all = Carried::ALL.into_iter().map(of);
            all.filter(|(_, it)| it.hidden + it.exposed > 0.0).collect()
        };
        Overlap {
            whole: within(0.0, f64::INFINITY),
            warm: within(first, f64::INFINITY),
            steady: within(first, last),
        }
    }
}

impl Overlap {
    /// The sum over some ranks.
    pub fn sum(all: impl IntoIterator<Item = Overlap>) -> Self {
        let mut sum = Overlap::default();
        for one in all {
            add(&mut sum.whole, one.whole);
            add(&mut sum.warm, one.warm);
            add(&mut sum.steady, one.steady);
        }
        sum
    }

    /// What a timeline of a plan comes to, rank by rank.
    pub fn of_timeline(plan: &Plan, timeline: &Timeline) -> Vec<Overlap> {
        let mut ranks = vec![Busy::default(); timeline.ranks.len()];
        for (rank, span) in timeline
            .ranks
            .iter()
            .enumerate()
            .flat_map(|(rank, spans)| spans.iter().map(move |s| (rank, s)))
        {
            let interval = (span.start, span.end);
            let (kind, chunk) = (span.task.kind, span.task.chunk);
            match span.lane {
                Lane::Compute if kind != Kind::Optimizer => {
                    ranks[rank].computed.push((is_backward(kind), interval));
                }
                Lane::Compute => {}
                Lane::Copy => ranks[rank].travelled.push((Carried::Copies, interval)),
                Lane::Communication => {
                    let (carried, to) = match kind {
                        Kind::Activations => {
                            (Carried::Pipeline, plan.chunks.get(chunk + 1).map(|it| it.stage))
                        }
                        Kind::Gradients => {
                            let before = chunk.checked_sub(1);
                            (Carried::Pipeline, before.map(|it| plan.chunks[it].stage))
                        }
                        Kind::Reduce => (Carried::Sums, Some(rank)),
                        Kind::Gather => continue,
                        _ => (Carried::Experts, Some(rank)),
                    };
                    if let Some(to) = to {
                        ranks[to].travelled.push((carried, interval));
                    }
                }
            }
        }
        ranks.iter().map(Busy::overlap).collect()
    }
}

/// Whether a computation belongs to the backward pass.
fn is_backward(kind: Kind) -> bool {
    !matches!(kind, Kind::Forward | Kind::ExpertForward)
}

fn add(sum: &mut BTreeMap<Carried, Travel>, one: BTreeMap<Carried, Travel>) {
    for (carried, Travel { hidden, exposed }) in one {
        let sum = sum.entry(carried).or_default();
        sum.hidden += hidden;
        sum.exposed += exposed;
    }
}

/// The moments in any of some intervals, as intervals apart and in order.
fn union(intervals: impl Iterator<Item = Interval>) -> Vec<Interval> {
    let mut sorted: Vec<Interval> = intervals.collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut apart: Vec<Interval> = Vec::new();
    for (begin, end) in sorted {
        match apart.last_mut().filter(|last| begin <= last.1) {
            Some(last) => last.1 = last.1.max(end),
            None => apart.push((begin, end)),
        }
    }
    apart
}

/// The moments in both of two such lists.
fn both(a: &[Interval], b: &[Interval]) -> Vec<Interval> {
    let (mut at, mut common) = (0, Vec::new());
    for &(begin, end) in a {
        while at < b.len() && b[at].1 <= begin {
            at += 1;
        }
        let meeting = b[at..].iter().take_while(|it| it.0 < end);
        common.extend(meeting.map(|it| (it.0.max(begin), it.1.min(end))));
    }
    common
}

fn length(intervals: &[Interval]) -> f64 {
    intervals.iter().map(|(begin, end)| end - begin).sum()
}

#[cfg(test)]
mod tests;
