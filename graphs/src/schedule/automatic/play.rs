//! One step played through in time, by the rules of the automatic schedule or by known orders.
//!
//! Whenever a stage is free it decides, of what is known by then, what to do next or until when to
//! wait; what a neighbour begins meanwhile makes it decide anew. A stage that has no room waits
//! for an `I`, and an `I` needs nothing but an `F` that has been done, so no play gets stuck.

use std::{cmp::Ordering, collections::BTreeSet};

use crate::{
    action::{Action, Work},
    schedule::{
        Pipeline,
        automatic::{Automatic, Choice, Lead},
    },
};

/// What a stage does when it is free.
enum Next {
    /// Begins the work.
    Do(Work),
    /// Waits until then, or for a neighbour.
    Wait(Option<u64>),
}

/// One stage in the play.
struct Stage {
    /// When the first work began.
    start: Option<u64>,
    /// When what has been begun is done.
    free: u64,
    /// When it decides next.
    wakes: Option<u64>,
    /// The earliest time at which the first `I` can come.
    first: u64,
    /// When the inputs of `F` and of `I` come, as far as is known.
    comes: [Vec<u64>; 2],
    /// `F`, `I` and `W` begun.
    begun: [usize; 3],
    /// Whether the last of `F` and `I` was an `I`.
    was_input: bool,
    /// What is saved.
    held: u64,
    order: Vec<Action>,
}

impl Stage {
    /// When the next of `F` or of `I` can start, if that is known.
    fn next(&self, kind: usize) -> Option<u64> {
        self.comes[kind].get(self.begun[kind]).copied()
    }

    fn has_weight(&self) -> bool {
        self.begun[2] < self.begun[1]
    }
}

/// A step in the making.
pub(super) struct Play<'a> {
    rule: &'a Automatic,
    lead: Lead,
    microbatches: usize,
    room: u64,
    stages: Vec<Stage>,
    /// When which stage decides next.
    queue: BTreeSet<(u64, usize)>,
}

impl<'a> Play<'a> {
    /// The whole step.
    pub(super) fn finished(rule: &'a Automatic, lead: Lead, pipeline: Pipeline) -> Self {
        let Pipeline { stages, microbatches, .. } = pipeline;
        let mut play = Play {
            rule,
            lead,
            microbatches,
            room: rule.room(stages),
            stages: (0..stages).map(|stage| Self::stage(rule, pipeline, stage)).collect(),
            queue: (0..stages).filter(|_| microbatches > 0).map(|stage| (0, stage)).collect(),
        };
        while let Some((now, stage)) = play.queue.pop_first() {
            play.stages[stage].wakes = None;
            match play.decide(stage, now) {
                Next::Do(work) => play.begin(stage, work, now),
                Next::Wait(until) => play.wake(stage, until),
            }
        }
        play
    }

    /// A stage before the step.
    fn stage(rule: &Automatic, pipeline: Pipeline, stage: usize) -> Stage {
        let [forward, input, comm] = [rule.forward, rule.input, rule.comm].map(u64::from);
        let Pipeline { stages, microbatches, .. } = pipeline;
        let [ahead, behind] = [stages - 1, stages - 1 - stage].map(|count| count as u64);
        Stage {
            start: None,
            free: 0,
            wakes: Some(0),
            first: ahead * (forward + comm) + forward + behind * (input + comm),
            comes: [if stage == 0 { vec![0; microbatches] } else { Vec::new() }, Vec::new()],
            begun: [0; 3],
            was_input: false,
            held: 0,
            order: Vec::with_capacity(3 * microbatches),
        }
    }

    /// The time of the stage that takes longest, from its first start to its last end.
    pub(super) fn longest(&self) -> u64 {
        let span = |stage: &Stage| stage.free - stage.start.unwrap_or(stage.free);
        self.stages.iter().map(span).max().unwrap_or(0)
    }

    /// When the last work is done.
    pub(super) fn makespan(&self) -> u64 {
        self.stages.iter().map(|stage| stage.free).max().unwrap_or(0)
    }

    /// What has been done.
    pub(super) fn orders(self) -> Vec<Vec<Action>> {
        self.stages.into_iter().map(|stage| stage.order).collect()
    }

    /// What a free stage does, or how long it waits.
    fn decide(&self, stage: usize, now: u64) -> Next {
        let it = &self.stages[stage];
        let work = match &self.lead {
            Lead::Orders(orders) => orders[stage][it.order.len()].work,
            Lead::Rules(choice) => self.chosen(*choice, stage, now),
        };
        let at = match work {
            Work::Forward => it.next(0),
            Work::BackwardInput | Work::Backward => it.next(1),
            Work::BackwardWeight => Some(now),
        };
        match (at.map(|at| at.saturating_sub(now)), &self.lead) {
            (Some(0), _) => Next::Do(work),
            (wait, Lead::Rules(choice)) if it.has_weight() && self.is_filled(*choice, wait) => {
                Next::Do(Work::BackwardWeight)
            }
            _ => Next::Wait(at),
        }
    }

    /// What a stage does next by the rules, once it can.
    fn chosen(&self, choice: Choice, stage: usize, now: u64) -> Work {
        let it = &self.stages[stage];
        let is_full = it.held + self.rule.saved() > self.room;
        match self.wanted(choice, stage, now) {
            Work::Forward if is_full && it.has_weight() => Work::BackwardWeight,
            Work::Forward if is_full => Work::BackwardInput,
            work => work,
        }
    }

    /// Whether a wait is filled with a `W`; one whose end is not known is for work not yet begun.
    fn is_filled(&self, choice: Choice, wait: Option<u64>) -> bool {
        let Automatic { forward, input, weight, comm, .. } = *self.rule;
        let wait = wait.unwrap_or(u64::from(forward.min(input)) + u64::from(comm));
        wait.saturating_mul(Choice::SIXTEENTHS) >= choice.filled * u64::from(weight)
    }

    /// What a stage would do next if it were ready and there were room.
    fn wanted(&self, choice: Choice, stage: usize, now: u64) -> Work {
        let it = &self.stages[stage];
        let in_turn = [Work::BackwardInput, Work::Forward][usize::from(it.was_input)];
        let [forward, input] = [0, 1].map(|kind| it.next(kind).unwrap_or(u64::MAX).max(now));
        match it.begun.map(|count| count == self.microbatches) {
            [true, true, _] => Work::BackwardWeight,
            [true, false, _] => Work::BackwardInput,
            _ if it.begun[1] == 0 && self.warms_up(choice, stage, now) => Work::Forward,
            _ if it.begun[1] == 0 => Work::BackwardInput,
            _ => match forward.cmp(&input) {
                Ordering::Less => Work::Forward,
                Ordering::Equal => in_turn,
                Ordering::Greater => Work::BackwardInput,
            },
        }
    }

    /// Whether a stage whose first `I` has not begun does another `F` before.
    fn warms_up(&self, choice: Choice, stage: usize, now: u64) -> bool {
        let it = &self.stages[stage];
        let Some(start) = it.next(0).map(|at| at.max(now)) else { return it.begun[0] == 0 };
        let input = it.next(1).unwrap_or(it.first);
        let fits = start + u64::from(self.rule.forward) <= input;
        let is_early = fits || choice.extra && start < input;
        it.begun[0] == 0 || is_early && (!choice.falls || self.is_behind(stage))
    }

    /// Whether the stage before has done an `F` more even after another one of this stage.
    fn is_behind(&self, stage: usize) -> bool {
        let Some(before) = stage.checked_sub(1) else { return true };
        let [before, own] = [before, stage].map(|stage| self.stages[stage].begun[0]);
        before == self.microbatches || before > own + 1
    }

    /// Lets a stage do the next of a kind of work, and its neighbours know.
    fn begin(&mut self, stage: usize, work: Work, now: u64) {
        let Automatic { forward, input, weight, freed, kept, .. } = *self.rule;
        let saved = self.rule.saved();
        let it = &mut self.stages[stage];
        let (kind, cost, saves, frees) = match work {
            Work::Forward => (0, forward, saved, 0),
            Work::BackwardInput | Work::Backward => (1, input, 0, u64::from(freed)),
            Work::BackwardWeight => (2, weight, 0, u64::from(kept)),
        };
        it.order.push(Action { chunk: stage, work, microbatch: it.begun[kind] });
        it.begun[kind] += 1;
        it.held = it.held + saves - frees;
        it.was_input = kind == 1 || kind == 2 && it.was_input;
        it.start.get_or_insert(now);
        it.free = now + u64::from(cost);
        let end = it.free;
        self.wake(stage, Some(end));
        self.tell(stage, kind, end);
        self.wake_neighbours(stage, now);
    }

    /// Lets those who need it know when an `F` or `I` is done.
    fn tell(&mut self, stage: usize, kind: usize, end: u64) {
        let comes = end + u64::from(self.rule.comm);
        match kind {
            0 if stage + 1 == self.stages.len() => self.stages[stage].comes[1].push(end),
            0 => self.stages[stage + 1].comes[0].push(comes),
            1 if stage > 0 => self.stages[stage - 1].comes[1].push(comes),
            _ => {}
        }
    }

    /// Lets neighbours that wait decide anew.
    fn wake_neighbours(&mut self, stage: usize, now: u64) {
        for neighbour in [stage.wrapping_sub(1), stage + 1] {
            if self.stages.get(neighbour).is_some_and(|it| it.free <= now) {
                self.wake(neighbour, Some(now));
            }
        }
    }

    /// Lets a stage that is not through decide then.
    fn wake(&mut self, stage: usize, at: Option<u64>) {
        let it = &mut self.stages[stage];
        if let Some(before) = it.wakes.take() {
            self.queue.remove(&(before, stage));
        }
        it.wakes = at.filter(|_| it.begun[2] < self.microbatches);
        self.queue.extend(it.wakes.map(|at| (at, stage)));
    }
}
