//! V-Half and V-Min: the V of ZB-V at a half and at a third of its memory.
//!
//! Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv:2405.15362. Each microbatch
//! passes the V in a fixed pattern, the building block, and a new one starts every six units of
//! time, which is what its `F`, `I` and `W` of two chunks take. What a stage holds is how long the
//! block keeps each chunk, over six: blocks that come back faster need less, and wait more at the
//! ends. A stage holds at most `2 (p / 2 + 1)` chunks with V-Half and `2 ((p + 1) / 3 + 1)` with
//! V-Min, rounded down, where 1F1B holds `2p` at worst.
//!
//! Only `F` and `I` have a place in the block. Weight gradients fill the units in which a stage
//! would wait or has no room for the next forward pass, oldest first; found by playing the step
//! through with equal times. In the middle that is the block of the paper; at the ends it saves
//! some of the waiting.

use std::collections::VecDeque;

use crate::{
    action::{Action, Work},
    schedule::{Pipeline, Placement},
};

/// The unit between one microbatch and the next.
const PERIOD: usize = 6;

/// How fast a microbatch passes the V.
#[derive(Clone, Copy, Debug)]
pub(super) enum Block {
    /// Two units a stage on the outward ways, one on the ways back.
    Half,
    /// One unit a stage.
    Min,
}

impl Block {
    /// When a stage starts `F` and `F`, `I` and `I` of the first microbatch, there and back.
    ///
    /// The block waits at the turns where two of the four would else meet in one unit of a period.
    fn starts(self, p: usize, stage: usize) -> [usize; 4] {
        match self {
            Block::Half => {
                let wait = if p.is_multiple_of(2) { 3 } else { 0 };
                let back = 3 * p - 1 + wait;
                [2 * stage, 3 * p - 2 - stage, back + 2 * stage, back + 3 * p - 1 - stage]
            }
            Block::Min => {
                let wait = if p.is_multiple_of(3) { 2 } else { 0 };
                let back = 2 * p + wait;
                [stage, 2 * p - 1 - stage, back + stage, back + 2 * p - 1 - stage]
            }
        }
    }

    /// The most chunks that a stage holds.
    fn room(self, p: usize) -> usize {
        match self {
            Block::Half => 2 * (p / 2 + 1),
            Block::Min => 2 * ((p + 1) / 3 + 1),
        }
    }

    /// `F` and `I` of one stage, in the order of the blocks.
    fn passes(self, pipeline: Pipeline, stage: usize) -> VecDeque<Action> {
        let Pipeline { stages: p, microbatches, .. } = pipeline;
        let [there, back] = [0, 1].map(|turn| Placement::V.chunk_of(stage, turn, p));
        let kinds = [
            (there, Work::Forward),
            (back, Work::Forward),
            (back, Work::BackwardInput),
            (there, Work::BackwardInput),
        ];
        let block = self.starts(p, stage).into_iter().zip(kinds);
        let mut passes: Vec<(usize, Action)> = (0..microbatches)
            .flat_map(|microbatch| {
                block.clone().map(move |(start, (chunk, work))| {
                    (start + PERIOD * microbatch, Action { chunk, work, microbatch })
                })
            })
            .collect();
        passes.sort_unstable_by_key(|&(start, _)| start);
        passes.into_iter().map(|(_, action)| action).collect()
    }

    /// The actions of all stages.
    pub(super) fn orders(self, pipeline: Pipeline) -> Vec<Vec<Action>> {
        let stage = |stage| Stage {
            passes: self.passes(pipeline, stage),
            weights: VecDeque::new(),
            held: 0,
            order: Vec::with_capacity(PERIOD * pipeline.microbatches),
        };
        let mut stages: Vec<Stage> = (0..pipeline.stages).map(stage).collect();
        let mut ends = Ends::new(pipeline);
        let mut now = 0;
        while stages.iter().any(Stage::is_busy) {
            for stage in &mut stages {
                stage.step(self.room(pipeline.stages), now, &mut ends);
            }
            now += 1;
        }
        stages.into_iter().map(|stage| stage.order).collect()
    }
}

/// One stage in the play.
struct Stage {
    /// `F` and `I` still to do.
    passes: VecDeque<Action>,
    /// `W` that could be done.
    weights: VecDeque<Action>,
    /// Activations held.
    held: usize,
    /// What has been done.
    order: Vec<Action>,
}

impl Stage {
    fn is_busy(&self) -> bool {
        !(self.passes.is_empty() && self.weights.is_empty())
    }

    /// Does the next pass if it can, or else a weight gradient.
    fn step(&mut self, room: usize, now: usize, ends: &mut Ends) {
        let fits = |next: &Action| next.work != Work::Forward || self.held < room;
        let can = |next: &Action| fits(next) && ends.is_ready(*next, now);
        let next = self.passes.front().copied().filter(can);
        match next {
            Some(action) => {
                self.passes.pop_front();
                ends.set(action, now + 1);
                match action.work {
                    Work::Forward => self.held += 1,
                    _ => self.weights.push_back(Action { work: Work::BackwardWeight, ..action }),
                }
                self.order.push(action);
            }
            None => {
                let weight = self.weights.pop_front();
                self.held -= usize::from(weight.is_some());
                self.order.extend(weight);
            }
        }
    }
}

/// When `F` and `I` of each chunk and microbatch were done.
struct Ends {
    chunks: usize,
    ends: [Vec<Option<usize>>; 2],
}

impl Ends {
    fn new(pipeline: Pipeline) -> Self {
        let chunks = 2 * pipeline.stages;
        let none = || vec![None; chunks * pipeline.microbatches];
        Ends { chunks, ends: [none(), none()] }
    }

    fn at(&self, action: Action) -> usize {
        action.microbatch * self.chunks + action.chunk
    }

    fn set(&mut self, action: Action, end: usize) {
        let at = self.at(action);
        self.ends[usize::from(action.work != Work::Forward)][at] = Some(end);
    }

    /// Whether what an `F` or `I` needs from the chunks beside it, and its own `F`, are done.
    fn is_ready(&self, action: Action, now: usize) -> bool {
        let Action { chunk, work, .. } = action;
        let at = self.at(action);
        let done = |kind: usize, at: usize| self.ends[kind][at].is_some_and(|end| end <= now);
        match work {
            Work::Forward => chunk == 0 || done(0, at - 1),
            _ => done(0, at) && (chunk + 1 == self.chunks || done(1, at + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bare::Bare,
        csv,
        schedule::{Schedule, tests::golden},
        simulate::{Costs, Timing, simulate},
    };

    fn pipeline(stages: usize, microbatches: usize) -> Pipeline {
        Pipeline { stages, virtual_stages: 2, microbatches }
    }

    fn timing(bare: &Bare) -> Timing {
        let costs =
            Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, pair: None, handling: 0.0 };
        simulate(bare, &costs).unwrap()
    }

    #[test]
    fn no_two_passes_of_a_block_meet_in_one_unit_of_the_period() {
        for (block, p) in
            [Block::Half, Block::Min].iter().flat_map(|b| (1..64).map(move |p| (b, p)))
        {
            for stage in 0..p {
                let mut units = block.starts(p, stage).map(|start| start % PERIOD).to_vec();
                units.sort_unstable();
                units.dedup();
                assert_eq!(units.len(), 4, "{block:?}, stage {stage} of {p}");
            }
        }
    }

    #[test]
    fn memory_is_a_half_and_a_third_of_that_of_1f1b() {
        for (schedule, block) in [(Schedule::VHalf, Block::Half), (Schedule::VMin, Block::Min)] {
            for p in 1..=16 {
                let bare = Bare::of(&schedule, pipeline(p, 3 * p + 2)).unwrap();
                let peak = timing(&bare).peak.into_iter().max().unwrap();
                assert_eq!(peak, block.room(p), "{schedule:?} {p}");
            }
        }
        // In microbatches of a whole stage, of which 1F1B holds p: half a p and a third, and one.
        let whole = [4, 8, 16].map(|p| [Block::Half, Block::Min].map(|it| it.room(p) / 2));
        assert_eq!(whole, [[3, 2], [5, 4], [9, 6]]);
    }

    #[test]
    fn one_stage_waits_for_nothing_and_more_turn_in_the_order_of_the_block() {
        for schedule in [Schedule::VHalf, Schedule::VMin] {
            let bare = Bare::of(&schedule, pipeline(1, 5)).unwrap();
            assert_eq!(timing(&bare).makespan, 30.0);
        }
        let bare = Bare::of(&Schedule::VMin, pipeline(2, 2)).unwrap();
        let expected = "0F0,3F0,3I0,0F1,3W0,0I0,0W0,3F1,3I1,3W1,0I1,0W1\n\
            1F0,2F0,2I0,1I0,1F1,2F1,2W0,1W0,2I1,1I1,2W1,1W1\n";
        assert_eq!(csv::write(&bare), expected);
    }

    /// The authors' scheduler searches the ends more thoroughly for V-Half, and ends as early as
    /// ours for V-Min; both hold as much.
    #[test]
    fn times_and_memory_are_close_to_those_of_the_authors() {
        let Some(folder) = golden("zero-bubble") else { return };
        let mut compared = 0;
        for (kind, schedule, apart) in
            [("half", Schedule::VHalf, 4.0), ("min", Schedule::VMin, 0.0)]
        {
            for (p, m) in
                [(2, 4), (2, 8), (4, 4), (4, 8), (4, 16), (8, 8), (8, 16), (8, 24), (8, 32)]
            {
                let name = format!("vgreedy_{kind}_p{p}_m{m}_F1000_I1000_W1000_c0.compute.csv");
                let text = std::fs::read_to_string(folder.join(&name)).unwrap();
                let theirs = timing(&Bare::new(csv::read(&text).unwrap()).unwrap());
                let ours = timing(&Bare::of(&schedule, pipeline(p, m)).unwrap());
                println!("{name}: {} theirs {}", ours.makespan, theirs.makespan);
                let later = ours.makespan - theirs.makespan;
                assert!(later <= apart, "{name}: {later} later");
                let most = |timing: &Timing| timing.peak.iter().copied().max();
                assert_eq!(most(&ours), most(&theirs), "{name}");
                compared += 1;
            }
        }
        assert_eq!(compared, 18);
    }
}
