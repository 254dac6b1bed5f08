//! What a step really did: when each actor ran each instruction, and when messages arrived.
//!
//! All times are nanoseconds since the begin of the step on one monotonic clock. An actor notes
//! them in a list of its own and hands it over with its last report of the step, so recording
//! sends no message and changes no bit; without it, each instruction asks once whether to note.

use std::time::Instant;

use graphs::{
    address::Address,
    plan::{ChannelId, Side},
};
use serde::{Deserialize, Serialize};

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
    /// Begin and end of the parts of the optimizer phase.
    pub phase: Vec<(Part, u64, u64)>,
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
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes that the next instruction begins.
    pub(crate) fn begin(&mut self) {
        let now = self.now();
        self.notes.instructions.push((now, now));
    }

    /// Notes that it is done.
    pub(crate) fn end(&mut self) {
        let now = self.now();
        if let Some(last) = self.notes.instructions.last_mut() {
            last.1 = now;
        }
        self.part = now;
    }

    /// Notes that a message is here.
    pub(crate) fn arrived(&mut self, channel: ChannelId, microbatch: usize, peer: usize) {
        let now = self.now();
        self.notes.arrivals.push((channel, microbatch, peer, now));
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
