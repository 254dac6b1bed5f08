//! Messages under way in a simulated plan: what was sent, and what has been taken.

use crate::plan::{ChannelId, Plan};

/// A message, seen by its receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// When its sender was ready to send.
    pub ready: f64,
    /// When its links were free.
    pub start: f64,
    /// When all of it has arrived; not a number before it is sent.
    pub arrival: f64,
    /// The send.
    pub event: u32,
}

const NEVER: Sent = Sent { ready: 0.0, start: 0.0, arrival: f64::NAN, event: 0 };

/// A buffer that was given back: when, and by which event before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub at: f64,
    pub after: u32,
}

/// All messages of all channels, for each copy of the plan's ranks.
pub(super) struct Post {
    copies: usize,
    microbatches: usize,
    sent: Vec<Sent>,
    counts: Vec<usize>,
    taken: Vec<Vec<Taken>>,
}

impl Post {
    pub fn new(plan: &Plan, copies: usize) -> Self {
        let microbatches = plan.batch.microbatches(plan.mesh.data_ranks());
        let pairs = plan.channels.len() * copies;
        Post {
            copies,
            microbatches,
            sent: vec![NEVER; pairs * microbatches],
            counts: vec![0; pairs],
            taken: vec![Vec::with_capacity(microbatches); pairs],
        }
    }

    fn token(&self, channel: ChannelId, copy: usize, microbatch: usize) -> usize {
        (channel * self.copies + copy) * self.microbatches + microbatch
    }

    pub fn send(&mut self, channel: ChannelId, copy: usize, microbatch: usize, sent: Sent) {
        let token = self.token(channel, copy, microbatch);
        self.sent[token] = sent;
        self.counts[channel * self.copies + copy] += 1;
    }

    pub fn take(&mut self, channel: ChannelId, copy: usize, taken: Taken) {
        self.taken[channel * self.copies + copy].push(taken);
    }

    /// The message that arrives last of those from some copies; nothing if one is not sent.
    pub fn last(
        &self,
        channel: ChannelId,
        from: std::ops::Range<usize>,
        microbatch: usize,
    ) -> Option<Sent> {
        let mut last: Option<Sent> = None;
        for copy in from {
            let sent = self.sent[self.token(channel, copy, microbatch)];
            if sent.arrival.is_nan() {
                return None;
            }
            if last.is_none_or(|last| last.arrival < sent.arrival) {
                last = Some(sent);
            }
        }
        last
    }

    /// The buffer that the next send of a copy needs: when all of its receivers have freed one.
    ///
    /// # Errors
    ///
    /// If some receiver has not.
    pub fn buffer(
        &self,
        channel: ChannelId,
        copy: usize,
        to: std::ops::Range<usize>,
        credits: usize,
    ) -> Result<Option<Taken>, ()> {
        let sent = self.counts[channel * self.copies + copy];
        let Some(freed) = sent.checked_sub(credits) else { return Ok(None) };
        let mut last: Option<Taken> = None;
        for peer in to {
            let taken = *self.taken[channel * self.copies + peer].get(freed).ok_or(())?;
            if last.is_none_or(|last| last.at < taken.at) {
                last = Some(taken);
            }
        }
        Ok(last)
    }
}
