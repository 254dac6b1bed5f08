//! What a step really did: when each actor ran each instruction, and when messages arrived.
//!
//! All times are nanoseconds since the begin of the step on one monotonic clock. An actor notes
//! them in a list of its own and hands it over with its last report of the step, so recording
//! sends no message and changes no bit; without it, each instruction asks once whether to note.

use std::{collections::BTreeMap, time::Instant};

use graphs::{
    address::Address,
    overlap::{Busy, Carried, Overlap},
    plan::{ChannelId, CopyStep, Instruction, Plan, Side},
};
use serde::{Deserialize, Serialize};

use crate::flights::FlightKey;

/// A recorded step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Steps done since the start of training, this one included.
    pub step: u64,
    /// One list for each compute actor.
    pub actors: Vec<Notes>,
}

/// What one actor noted.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// Copy of the model.
    pub replica: usize,
    /// Pipeline stage.
    pub stage: usize,
    /// Expert rank.
    pub rank: usize,
    /// Whether it is the expert-group actor of its rank, and not its stage actor.
    pub experts: bool,
    /// Begin and end of each instruction of its program, in order.
    pub instructions: Vec<(u64, u64)>,
    /// When a message was in its mailbox: channel, microbatch, expert rank of the sender, time.
    ///
    /// A computing actor opens its queue when it has nothing left to do, so this is when it could
    /// first have used the message.
    pub arrivals: Vec<(ChannelId, usize, usize, u64)>,
    /// Begin and end of the way of a message over its link: channel, microbatch, expert rank of the
    /// sender, times. Empty if messages are handed over in memory.
    #[serde(default)]
    pub travels: Vec<(ChannelId, usize, usize, u64, u64)>,
    /// Begin and end of each copy to the host, or back: chunk, visit, microbatch, whether it comes
    /// back, times.
    #[serde(default)]
    pub copies: Vec<(usize, usize, usize, bool, u64, u64)>,
    /// Begin and end of the way of each sum of gradients to this actor, if it took a link.
    #[serde(default)]
    pub sums: Vec<(u64, u64)>,
    /// Begin and end of the parts of the optimizer phase.
    pub phase: Vec<(Part, u64, u64)>,
}

impl Recording {
    /// How much of what travelled was hidden by computation, summed over ranks.
    pub fn overlap(&self, plan: &Plan) -> Overlap {
        let mut ranks: BTreeMap<(usize, usize, usize), Busy> = BTreeMap::new();
        for notes in &self.actors {
            let rank = ranks.entry((notes.replica, notes.stage, notes.rank)).or_default();
            notes.add_to(plan, rank);
        }
        Overlap::sum(ranks.values().map(Busy::overlap))
    }
}

impl Notes {
    /// Adds what this actor did to what its rank did.
    fn add_to(&self, plan: &Plan, rank: &mut Busy) {
        let side = if self.experts { Side::Experts } else { Side::Stage };
        let seconds = |(begin, end): (u64, u64)| (begin as f64 * 1e-9, end as f64 * 1e-9);
        let program = &plan.programs[self.stage][side as usize].instructions;
        for (instruction, &interval) in program.iter().zip(&self.instructions) {
            let backward = match instruction {
                Instruction::Forward { .. } => false,
                Instruction::Restore { .. }
                | Instruction::BackwardInput { .. }
                | Instruction::BackwardWeight { .. } => true,
                Instruction::Receive { .. }
                | Instruction::Send { .. }
                | Instruction::Copy { .. }
                | Instruction::Reduce { .. } => continue,
            };
            rank.computed.push((backward, seconds(interval)));
        }
        for &(channel, _, _, begin, end) in &self.travels {
            let carried = Carried::of(plan.channels[channel].cargo);
            rank.travelled.push((carried, seconds((begin, end))));
        }
        for &(.., begin, end) in &self.copies {
            rank.travelled.push((Carried::Copies, seconds((begin, end))));
        }
        for &interval in &self.sums {
            rank.travelled.push((Carried::Sums, seconds(interval)));
        }
    }
}

/// A part of the optimizer phase.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Part {
    /// Gradients on their way to the holders of slices, until the own ones are joined.
    Reduce,
    /// Updates of the own slices, with the way of momentum to Newton-Schulz and back.
    Update,
    /// New values on their way, until all of them are here.
    Gather,
}

/// The notes of an actor, while a step is recorded.
#[derive(Debug)]
pub(crate) struct Recorder {
    since: Instant,
    notes: Notes,
    /// When the part of the optimizer phase that is under way began.
    part: u64,
}

impl Recorder {
    /// Begins to note a step that began at `since`.
    pub(crate) fn new(since: Instant, me: Address) -> Self {
        let Address { replica, stage, rank, side } = me;
        let experts = side == Side::Experts;
        let notes = Notes { replica, stage, rank, experts, ..Notes::default() };
        Recorder { since, notes, part: 0 }
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.since);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes that the next instruction begins.
    pub(crate) fn begin(&mut self) {
        let now = self.now();
        self.notes.instructions.push((now, now));
    }

    /// Notes that the instruction under way begins only now, having waited for its device.
    pub(crate) fn start(&mut self) {
        let now = self.now();
        if let Some(last) = self.notes.instructions.last_mut() {
            last.0 = now;
        }
    }

    /// Notes that it is done.
    pub(crate) fn end(&mut self) {
        let now = self.now();
        if let Some(last) = self.notes.instructions.last_mut() {
            last.1 = now;
        }
        self.part = now;
    }

    /// Puts the moments of a GPU in place of the host's for the instructions that computed there.
    /// What the host did ahead of it counts as done when the GPU had come so far.
    pub(crate) fn ran(&mut self, all: &[(usize, Instant, Instant)]) {
        for &(instruction, begin, end) in all {
            let interval = (self.at(begin), self.at(end));
            if let Some(note) = self.notes.instructions.get_mut(instruction) {
                *note = interval;
            }
        }
        let mut reached = 0;
        for (begin, end) in &mut self.notes.instructions {
            *begin = reached.max(*begin);
            *end = (*begin).max(*end);
            reached = *end;
        }
        self.part = self.part.max(reached);
    }

    /// Notes that a message is here, and its way if it took one.
    pub(crate) fn arrived(
        &mut self,
        channel: ChannelId,
        microbatch: usize,
        peer: usize,
        travelled: Option<(Instant, Instant)>,
    ) {
        let now = self.now();
        self.notes.arrivals.push((channel, microbatch, peer, now));
        if let Some((begin, end)) = travelled {
            let (begin, end) = (self.at(begin), self.at(end));
            self.notes.travels.push((channel, microbatch, peer, begin, end));
        }
    }

    /// Notes a copy that the copy lane has done.
    pub(crate) fn copied(
        &mut self,
        (chunk, visit, microbatch, _): FlightKey,
        step: CopyStep,
        (begin, end): (Instant, Instant),
    ) {
        let (begin, end) = (self.at(begin), self.at(end));
        let back = step == CopyStep::Fetch;
        self.notes.copies.push((chunk, visit, microbatch, back, begin, end));
    }

    /// Notes the way of a sum of gradients that is here.
    pub(crate) fn summed(&mut self, (begin, end): (Instant, Instant)) {
        let interval = (self.at(begin), self.at(end));
        self.notes.sums.push(interval);
    }

    /// Notes that a part of the optimizer phase begins.
    pub(crate) fn begin_part(&mut self) {
        self.part = self.now();
    }

    /// Notes that a part of the optimizer phase is done; the next one may begin.
    pub(crate) fn end_part(&mut self, part: Part) {
        let now = self.now();
        self.notes.phase.push((part, self.part, now));
        self.part = now;
    }

    /// All notes.
    pub(crate) fn finish(self) -> Notes {
        self.notes
    }
}
