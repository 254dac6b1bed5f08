//! A place in a table for every instruction that a plan must hold.

use crate::plan::{ChannelId, CopyStep, Instruction, Plan, Side};

/// Kinds of work on a segment: `F`, restore, `I`, `W`, the steps of copies, and reduce, which has
/// one place of those of its microbatches.
const WORKS: usize = 5 + CopyStep::ALL.len();

/// Numbers the instructions of a step: kind by kind, and within a kind by microbatch.
pub(super) struct Slots<'a> {
    plan: &'a Plan,
    microbatches: usize,
    /// First kind of each side of each chunk, some for each segment or visit; those of channels,
    /// two each, come before.
    firsts: Vec<[usize; 2]>,
    kinds: usize,
}

impl<'a> Slots<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let microbatches = plan.batch.microbatches(plan.mesh.data_ranks());
        let mut kinds = 2 * plan.channels.len();
        let mut take = |segments: usize| {
            let first = kinds;
            kinds += WORKS * segments;
            first
        };
        let chunks = plan.chunks.iter();
        let firsts = chunks.map(|it| [take(it.segments.len()), take(it.visits.len())]).collect();
        Slots { plan, microbatches, firsts, kinds }
    }

    /// An empty table.
    pub(super) fn table(&self) -> Vec<bool> {
        vec![false; self.kinds * self.microbatches]
    }

    fn segments(&self, chunk: usize, side: Side) -> usize {
        let it = &self.plan.chunks[chunk];
        match side {
            Side::Stage => it.segments.len(),
            Side::Experts => it.visits.len(),
        }
    }

    fn restores(&self, chunk: usize, side: Side, segment: usize) -> bool {
        self.plan.chunks.get(chunk).is_some_and(|it| it.restores(side, segment))
    }

    /// The place of an instruction, if the actor may have it.
    pub(super) fn find(
        &self,
        (stage, side): (usize, Side),
        instruction: Instruction,
    ) -> Option<usize> {
        let own = |channel: ChannelId, receives: bool| {
            let it = self.plan.channels.get(channel)?;
            let end = if receives { it.to } else { it.from };
            (end == (stage, side)).then_some(2 * channel + usize::from(receives))
        };
        let work = |chunk: usize, segment: usize, work: usize| {
            let is_own = self.plan.chunks.get(chunk)?.stage == stage;
            let is_there = segment < self.segments(chunk, side);
            (is_own && is_there).then(|| self.firsts[chunk][side as usize] + WORKS * segment + work)
        };
        let (kind, microbatch) = match instruction {
            Instruction::Receive { channel, microbatch } => (own(channel, true), microbatch),
            Instruction::Send { channel, microbatch } => (own(channel, false), microbatch),
            Instruction::Forward { chunk, segment, microbatch } => {
                (work(chunk, segment, 0), microbatch)
            }
            Instruction::BackwardInput { chunk, segment, microbatch } => {
                (work(chunk, segment, 1), microbatch)
            }
            Instruction::BackwardWeight { chunk, segment, microbatch } => {
                (work(chunk, segment, 2), microbatch)
            }
            Instruction::Restore { chunk, segment, microbatch } => (
                work(chunk, segment, 3).filter(|_| self.restores(chunk, side, segment)),
                microbatch,
            ),
            Instruction::Copy { step, chunk, segment, microbatch } => {
                let is_home = side == Side::Experts || segment == 0;
                (work(chunk, segment, 4 + step as usize).filter(|_| is_home), microbatch)
            }
            Instruction::Reduce { chunk, segment } => {
                (work(chunk, segment, WORKS - 1).filter(|_| self.plan.reduces_early), 0)
            }
        };
        Some(kind? * self.microbatches + microbatch).filter(|_| microbatch < self.microbatches)
    }

    /// How many different instructions an actor must have; copies it may have.
    pub(super) fn count(&self, (stage, side): (usize, Side)) -> usize {
        let channels = self.plan.channels.iter();
        let ends = channels.flat_map(|it| [it.from, it.to]).filter(|&end| end == (stage, side));
        let own = (0..self.plan.chunks.len()).filter(|&c| self.plan.chunks[c].stage == stage);
        let works = |chunk| {
            let restored =
                (0..self.segments(chunk, side)).filter(|&it| self.restores(chunk, side, it));
            3 * self.segments(chunk, side) + restored.count()
        };
        let reduces = |chunk| usize::from(self.plan.reduces_early) * self.segments(chunk, side);
        let reduces: usize = own.clone().map(reduces).sum();
        let works: usize = own.map(works).sum();
        (ends.count() + works) * self.microbatches + reduces
    }

    /// All that an actor must have: receives, sends, then work, chunk by chunk.
    pub(super) fn all(&self, actor: (usize, Side)) -> impl Iterator<Item = (usize, Instruction)> {
        let messages: [fn(usize, usize, usize) -> Instruction; 2] = [
            |channel, _, microbatch| Instruction::Receive { channel, microbatch },
            |channel, _, microbatch| Instruction::Send { channel, microbatch },
        ];
        let work: [fn(usize, usize, usize) -> Instruction; 4] = [
            |chunk, segment, microbatch| Instruction::Forward { chunk, segment, microbatch },
            |chunk, segment, microbatch| Instruction::BackwardInput { chunk, segment, microbatch },
            |chunk, segment, microbatch| Instruction::BackwardWeight { chunk, segment, microbatch },
            |chunk, segment, microbatch| Instruction::Restore { chunk, segment, microbatch },
        ];
        let channels = messages
            .into_iter()
            .flat_map(|kind| (0..self.plan.channels.len()).map(move |channel| (kind, channel, 0)));
        let segments = work.into_iter().flat_map(move |kind| {
            (0..self.plan.chunks.len()).flat_map(move |chunk| {
                (0..self.segments(chunk, actor.1)).map(move |segment| (kind, chunk, segment))
            })
        });
        let each = channels.chain(segments).flat_map(move |(kind, first, second)| {
            (0..self.microbatches).map(move |microbatch| kind(first, second, microbatch))
        });
        let reduces = (0..self.plan.chunks.len()).flat_map(move |chunk| {
            let segments = 0..self.segments(chunk, actor.1);
            segments.map(move |segment| Instruction::Reduce { chunk, segment })
        });
        let all = each.chain(reduces);
        all.filter_map(move |instruction| Some((self.find(actor, instruction)?, instruction)))
    }
}
