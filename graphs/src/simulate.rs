//! How long things take: an event simulation of whole plans, [`plan`], and of bare orders.
//!
//! Of bare orders each rank does its cells in order, each as soon as its inputs have arrived. `B`
//! takes as long as `I` and `W` and hands its input's gradient over at its end; a pair starts when
//! both can and takes as long as both, its forward pass first, unless it has a price of its own:
//! then both are done at its end, and what it saves is messages of the one hidden under the other.
//! What crosses between ranks arrives `comm` later and keeps both ranks busy for `handling`. Sends
//! never wait: [`crate::check::hang`] says with how many credits that is so. Messages that the rows
//! write out cost nothing by themselves.

use std::collections::BTreeMap;

use crate::{
    action::{Action, Work},
    bare::{Bare, Cell, Step},
    check::{Hang, hang},
    timeline::{Cause, Kind, Lane, Span, Task, Timeline, Wait},
};

mod actor;
mod chain;
mod conditions;
mod engine;
mod link;
mod outcome;
mod plan;
mod post;
mod record;

pub use self::{
    chain::{Link, chain},
    conditions::Conditions,
    outcome::{Outcome, RankOutcome},
    plan::{Simulated, outcome, plan},
    record::{
        copy as copy_task, message as message_task, reduce as reduce_task, work as work_task,
    },
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
    /// What a message keeps its sender busy for after the work, and its receiver before.
    pub handling: f64,
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
    let run = Run::finished(bare, costs)?;
    let makespan = run.end.iter().copied().fold(0.0, f64::max);
    let start = run.start.iter().map(|start| start.unwrap_or(0.0));
    Ok(Timing {
        makespan,
        span: run.end.iter().zip(start).map(|(end, start)| end - start).collect(),
        idle: run.busy.iter().map(|busy| makespan - busy).collect(),
        peak: bare.rows().iter().map(|row| peak(row)).collect(),
    })
}

/// Simulates one step and says when each rank does what, and what it waits for.
///
/// Spans carry the numbers of their cells; the two parts of a pair share one. Where the way
/// between ranks takes time, each message has a span on its sender's communication lane, under the
/// number of the cell that makes it; such spans may overlap, since the way is never full.
///
/// # Errors
///
/// [`Hang`] if the orders hang however many credits there are.
pub fn timeline(bare: &Bare, costs: &Costs) -> Result<Timeline, Hang> {
    let mut ranks = Run::finished(bare, costs)?.spans;
    for spans in &mut ranks {
        spans.sort_by(|a, b| a.lane.cmp(&b.lane).then(a.start.total_cmp(&b.start)));
    }
    Ok(Timeline { ranks })
}

/// When a part of the work was done, and by which cell of which rank.
#[derive(Clone, Copy)]
struct Done {
    at: f64,
    by: (usize, usize),
}

/// When the inputs of a step have arrived, and the one that came last.
#[derive(Clone, Copy, Default)]
struct Ready {
    at: f64,
    last: Option<Done>,
}

/// How far each rank has come, and when.
struct Run<'a> {
    bare: &'a Bare,
    costs: &'a Costs,
    /// Number of the first cell of each rank.
    first: Vec<usize>,
    at: Vec<usize>,
    start: Vec<Option<f64>>,
    end: Vec<f64>,
    busy: Vec<f64>,
    /// When each part of the work was done.
    done: BTreeMap<Action, Done>,
    spans: Vec<Vec<Span>>,
}

impl<'a> Run<'a> {
    fn finished(bare: &'a Bare, costs: &'a Costs) -> Result<Self, Hang> {
        hang(bare, bare.microbatches())?;
        let mut run = Run::new(bare, costs);
        let ranks = bare.rows().len();
        while (0..ranks).fold(false, |moved, rank| run.advance(rank) | moved) {}
        Ok(run)
    }

    fn new(bare: &'a Bare, costs: &'a Costs) -> Self {
        let ranks = bare.rows().len();
        let cells = |before: &mut usize, row: &Vec<Cell>| {
            let first = *before;
            *before += row.len();
            Some(first)
        };
        Run {
            bare,
            costs,
            first: bare.rows().iter().scan(0, cells).collect(),
            at: vec![0; ranks],
            start: vec![None; ranks],
            end: vec![0.0; ranks],
            busy: vec![0.0; ranks],
            done: BTreeMap::new(),
            spans: vec![Vec::new(); ranks],
        }
    }

    /// Lets one rank go as far as it comes; says whether it came anywhere.
    fn advance(&mut self, rank: usize) -> bool {
        let first = self.at[rank];
        while let Some(&Cell { step, .. }) = self.bare.rows()[rank].get(self.at[rank]) {
            let Some(ready) = self.ready(rank, step) else { break };
            self.perform(rank, step, ready);
            self.at[rank] += 1;
        }
        self.at[rank] > first
    }

    /// Does a step whose inputs are there.
    fn perform(&mut self, rank: usize, step: Step, ready: Ready) {
        let actions = step.actions();
        if let (Step::Pair(..), Some(gain)) = (step, self.costs.gain()) {
            let apart: f64 = actions.iter().map(|action| self.costs.of(action.work)).sum();
            return self.compute(rank, &actions, ready, f64::max(apart - gain, 0.0));
        }
        for action in actions {
            self.compute(rank, &[action], ready, self.costs.of(action.work));
        }
    }

    /// When the inputs of a step have arrived, if that is known yet.
    fn ready(&self, rank: usize, step: Step) -> Option<Ready> {
        let mut ready = Ready::default();
        for need in step.actions().into_iter().flat_map(|action| self.bare.needs(action)) {
            let is_far = self.bare.places()[need.chunk] != rank;
            let way = if is_far { self.costs.comm } else { 0.0 };
            let done = *self.done.get(&need)?;
            if done.at + way > ready.at {
                ready = Ready { at: done.at + way, last: Some(done) };
            }
        }
        Some(ready)
    }

    /// Does actions that end together, in so much time.
    fn compute(&mut self, rank: usize, actions: &[Action], ready: Ready, cost: f64) {
        let wait = self.wait(rank, ready);
        let takes: usize = actions.iter().map(|&action| self.bare.takes(action).len()).sum();
        let makes = actions.iter().filter(|&&action| self.bare.makes(action).is_some()).count();
        let [takes, makes] = [takes, makes].map(|n| n as f64 * self.costs.handling);
        let start = self.end[rank].max(ready.at);
        let end = start + takes + cost;
        let id = self.first[rank] + self.at[rank];
        self.start[rank].get_or_insert(start);
        self.end[rank] = end + makes;
        self.busy[rank] += takes + cost + makes;
        let done = Done { at: end, by: (rank, id) };
        let parts = actions.iter().flat_map(|action| action.parts());
        self.done.extend(parts.map(|part| (part, done)));
        self.draw(rank, actions, (start, end), wait);
    }

    /// Notes the spans of actions that share an interval: one after the other, as they would be
    /// apart, and the messages they send.
    fn draw(
        &mut self,
        rank: usize,
        actions: &[Action],
        (start, end): (f64, f64),
        wait: Option<Wait>,
    ) {
        let id = self.first[rank] + self.at[rank];
        let apart: f64 = actions.iter().map(|action| self.costs.of(action.work)).sum();
        let (mut begin, mut wait) = (start, wait);
        for (at, &action) in actions.iter().enumerate() {
            let share = (end - start) * self.costs.of(action.work) / apart;
            let until = if at + 1 == actions.len() { end } else { begin + share };
            let task = task(action);
            let span = Span { id, lane: Lane::Compute, task, start: begin, end: until, wait };
            self.spans[rank].push(span);
            (begin, wait) = (until, None);
            if self.costs.comm > 0.0 && self.bare.makes(action).is_some() {
                let task = Task { kind: message(action.work), ..task };
                let (lane, arrival) = (Lane::Communication, end + self.costs.comm);
                self.spans[rank].push(Span {
                    id,
                    lane,
                    task,
                    start: end,
                    end: arrival,
                    wait: None,
                });
            }
        }
    }

    /// Why a rank idles until a step is ready, if it does.
    fn wait(&self, rank: usize, ready: Ready) -> Option<Wait> {
        let since = self.end[rank];
        let on = ready.last.filter(|_| ready.at > since)?;
        let cause = match self.start[rank] {
            None => Cause::WarmUp,
            Some(_) if on.at > since => Cause::Data,
            Some(_) => Cause::Transfer,
        };
        Some(Wait { since, cause, on: Some(on.by) })
    }
}

/// An action as timelines name it.
fn task(Action { chunk, work, microbatch }: Action) -> Task {
    let kind = match work {
        Work::Forward => Kind::Forward,
        Work::BackwardInput => Kind::BackwardInput,
        Work::BackwardWeight => Kind::BackwardWeight,
        Work::Backward => Kind::Backward,
    };
    Task { kind, chunk, segment: 0, microbatch }
}

/// What the work sends to another rank.
fn message(work: Work) -> Kind {
    if work == Work::Forward { Kind::Activations } else { Kind::Gradients }
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
