//! Writes the order of a stage that holds two chunks of a V, chunk by chunk, counting for it.

use std::collections::VecDeque;

use crate::{
    action::{Action, Work},
    bare::Step,
    schedule::{Pipeline, Placement},
};

/// The order of one stage in the making; turn 0 is the way there, turn 1 the way back.
pub(super) struct Writer {
    chunks: [usize; 2],
    /// Microbatches that each turn has begun forward and backward.
    begun: [[usize; 2]; 2],
    /// Weight gradients put off, oldest first.
    waiting: VecDeque<Action>,
    /// What has been written.
    pub(super) steps: Vec<Step>,
}

impl Writer {
    pub(super) fn new(pipeline: Pipeline, stage: usize) -> Self {
        let chunk = |turn| Placement::V.chunk_of(stage, turn, pipeline.stages);
        Writer {
            chunks: [chunk(0), chunk(1)],
            begun: [[0; 2]; 2],
            waiting: VecDeque::new(),
            steps: Vec::new(),
        }
    }

    /// Microbatches of a turn whose forward pass is written.
    pub(super) fn forwards(&self, turn: usize) -> usize {
        self.begun[turn][0]
    }

    fn next(&mut self, turn: usize, work: Work) -> Action {
        let count = &mut self.begun[turn][usize::from(work != Work::Forward)];
        let action = Action { chunk: self.chunks[turn], work, microbatch: *count };
        *count += 1;
        action
    }

    /// Writes the next forward pass of a turn.
    pub(super) fn forward(&mut self, turn: usize) {
        let action = self.next(turn, Work::Forward);
        self.steps.push(Step::Work(action));
    }

    /// Writes the next whole backward pass of a turn.
    pub(super) fn backward(&mut self, turn: usize) {
        let action = self.next(turn, Work::Backward);
        self.steps.push(Step::Work(action));
    }

    /// Writes the next forward pass of a turn and the next backward pass of the other as a pair.
    pub(super) fn pair(&mut self, turn: usize) {
        let forward = self.next(turn, Work::Forward);
        let backward = self.next(1 - turn, Work::Backward);
        self.steps.push(Step::Pair(forward, backward));
    }

    /// Writes the next input gradient of a turn and puts its weight gradient off.
    pub(super) fn input(&mut self, turn: usize) {
        let action = self.next(turn, Work::BackwardInput);
        self.steps.push(Step::Work(action));
        self.waiting.push_back(Action { work: Work::BackwardWeight, ..action });
    }

    /// Writes the weight gradient that has waited longest, if there is one.
    pub(super) fn weight(&mut self) {
        self.steps.extend(self.waiting.pop_front().map(Step::Work));
    }

    /// Writes the weight gradient of a turn that has waited longest, if there is one.
    pub(super) fn weight_of(&mut self, turn: usize) {
        let chunk = self.chunks[turn];
        let at = self.waiting.iter().position(|action| action.chunk == chunk);
        self.steps.extend(at.and_then(|at| self.waiting.remove(at)).map(Step::Work));
    }
}
