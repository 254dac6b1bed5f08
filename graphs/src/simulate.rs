//! How long bare orders take: an event simulation for given prices.
//!
//! Each rank does its cells in order, each as soon as its inputs have arrived. `B` takes as long
//! as `I` and `W` and hands its input's gradient over at its end; a pair starts when both can and
//! takes as long as both, its forward pass first, unless it has a price of its own: then both are
//! done at its end, and what it saves is messages of the one hidden under the other. What crosses
//! between ranks arrives `comm` later and keeps neither rank busy. Sends never wait:
//! [`crate::check::hang`] says with how many credits that is so. Messages that the rows write out
//! cost nothing by themselves.

use std::collections::BTreeMap;

use crate::{
    action::{Action, Work},
    bare::{Bare, Cell, Step},
    check::{Hang, hang},
};

/// Prices of work on one chunk, in any unit of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Forward pass, `F`.
    pub forward: f64,
    /// Gradient of the input, `I`.
    pub input: f64,
    /// Gradient of the weights, `W`.
    pub weight: f64,
    /// Way from one rank to another.
    pub comm: f64,
    /// `F` and `B` as a pair; left out: as long as one after the other. A pair of `F` and `I`
    /// saves as much.
    pub pair: Option<f64>,
}

impl Costs {
    fn of(&self, work: Work) -> f64 {
        match work {
            Work::Forward => self.forward,
            Work::BackwardInput => self.input,
            Work::BackwardWeight => self.weight,
            Work::Backward => self.input + self.weight,
        }
    }

    /// What one pass after the other takes longer than a pair.
    fn gain(&self) -> Option<f64> {
        self.pair.map(|pair| self.of(Work::Forward) + self.of(Work::Backward) - pair)
    }
}

/// What a step costs, with one entry for each rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// From the first start to the last end.
    pub makespan: f64,
    /// From a rank's first start to its own last end.
    pub span: Vec<f64>,
    /// Time of the makespan in which a rank computes nothing.
    pub idle: Vec<f64>,
    /// Activations that a rank holds at most: forward passes whose `W`, or `B`, is not done.
    pub peak: Vec<usize>,
}

/// Simulates one step.
///
/// # Errors
///
/// [`Hang`] if the orders hang however many credits there are.
pub fn simulate(bare: &Bare, costs: &Costs) -> Result<Timing, Hang> {
    hang(bare, bare.microbatches())?;
    let mut run = Run::new(bare, costs);
    let ranks = bare.rows().len();
    while (0..ranks).fold(false, |moved, rank| run.advance(rank) | moved) {}
    let makespan = run.end.iter().copied().fold(0.0, f64::max);
    let start = run.start.iter().map(|start| start.unwrap_or(0.0));
    Ok(Timing {
        makespan,
        span: run.end.iter().zip(start).map(|(end, start)| end - start).collect(),
        idle: run.busy.iter().map(|busy| makespan - busy).collect(),
        peak: bare.rows().iter().map(|row| peak(row)).collect(),
    })
}

/// How far each rank has come, and when.
struct Run<'a> {
    bare: &'a Bare,
    costs: &'a Costs,
    at: Vec<usize>,
    start: Vec<Option<f64>>,
    end: Vec<f64>,
    busy: Vec<f64>,
    /// When each part of the work was done.
    done: BTreeMap<Action, f64>,
}

impl<'a> Run<'a> {
    fn new(bare: &'a Bare, costs: &'a Costs) -> Self {
        let ranks = bare.rows().len();
        Run {
            bare,
            costs,
            at: vec![0; ranks],
            start: vec![None; ranks],
            end: vec![0.0; ranks],
            busy: vec![0.0; ranks],
            done: BTreeMap::new(),
        }
    }

    /// Lets one rank go as far as it comes; says whether it came anywhere.
    fn advance(&mut self, rank: usize) -> bool {
        let first = self.at[rank];
        while let Some(&Cell { step, .. }) = self.bare.rows()[rank].get(self.at[rank]) {
            let Some(ready) = self.ready(rank, step) else { break };
            self.perform(rank, step, self.end[rank].max(ready));
            self.at[rank] += 1;
        }
        self.at[rank] > first
    }

    /// Does a step whose inputs are there.
    fn perform(&mut self, rank: usize, step: Step, start: f64) {
        let actions = step.actions();
        let price = |action: &Action| self.costs.of(action.work);
        if let (Step::Pair(..), Some(gain)) = (step, self.costs.gain()) {
            let apart: f64 = actions.iter().map(price).sum();
            return self.compute(rank, &actions, start, f64::max(apart - gain, 0.0));
        }
        let mut start = start;
        for action in actions {
            self.compute(rank, &[action], start, self.costs.of(action.work));
            start = self.end[rank];
        }
    }

    /// When the inputs of a step have arrived, if that is known yet.
    fn ready(&self, rank: usize, step: Step) -> Option<f64> {
        let mut ready = 0.0;
        for need in step.actions().into_iter().flat_map(|action| self.bare.needs(action)) {
            let is_far = self.bare.places()[need.chunk] != rank;
            let way = if is_far { self.costs.comm } else { 0.0 };
            ready = f64::max(ready, self.done.get(&need)? + way);
        }
        Some(ready)
    }

    /// Does actions that end together.
    fn compute(&mut self, rank: usize, actions: &[Action], start: f64, cost: f64) {
        self.start[rank].get_or_insert(start);
        self.end[rank] = start + cost;
        self.busy[rank] += cost;
        let parts = actions.iter().flat_map(|action| action.parts());
        self.done.extend(parts.map(|part| (part, start + cost)));
    }
}

/// The most activations that a row holds at a time.
fn peak(row: &[Cell]) -> usize {
    let (mut held, mut peak) = (0_usize, 0);
    for action in row.iter().flat_map(|cell| cell.step.actions()) {
        match action.work {
            Work::Forward => held += 1,
            Work::Backward | Work::BackwardWeight => held = held.saturating_sub(1),
            Work::BackwardInput => {}
        }
        peak = peak.max(held);
    }
    peak
}

#[cfg(test)]
mod tests;
