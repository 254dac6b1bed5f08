//! Hands out cargo by channel and microbatch, not by arrival, and keeps the credits.

use std::collections::BTreeMap;

use graphs::plan::{ChannelId, Plan};
use ops::Tensor;

/// What has arrived for one actor and what it may still send.
#[derive(Debug)]
pub struct Mailbox {
    /// Arrived and not yet taken; at most `credits` for each channel and peer.
    cargo: BTreeMap<(ChannelId, usize, usize), Vec<Tensor>>,
    /// Buffers free at the other end, by channel and peer.
    credits: BTreeMap<(ChannelId, usize), usize>,
    /// Bytes arrived and not yet taken.
    waiting: u64,
    /// The most of them in this step.
    most: u64,
}

impl Mailbox {
    /// An empty mailbox with all credits of the plan.
    pub fn new(plan: &Plan) -> Self {
        let channels = plan.channels.iter().enumerate();
        let credits = channels
            .flat_map(|(id, channel)| {
                (0..plan.mesh.ep).map(move |peer| ((id, peer), channel.credits))
            })
            .collect();
        Mailbox { cargo: BTreeMap::new(), credits, waiting: 0, most: 0 }
    }

    /// Stores what arrived.
    pub fn put(&mut self, channel: ChannelId, microbatch: usize, peer: usize, cargo: Vec<Tensor>) {
        self.waiting += bytes(&cargo);
        self.most = self.most.max(self.waiting);
        self.cargo.insert((channel, microbatch, peer), cargo);
    }

    /// The first of `peers` whose cargo is still missing.
    pub fn missing(
        &self,
        channel: ChannelId,
        microbatch: usize,
        mut peers: std::ops::Range<usize>,
    ) -> Option<usize> {
        peers.find(|peer| !self.cargo.contains_key(&(channel, microbatch, *peer)))
    }

    /// Takes what has arrived from a peer.
    ///
    /// # Panics
    ///
    /// If it has not arrived; ask [`Mailbox::missing`] first.
    pub fn take(&mut self, channel: ChannelId, microbatch: usize, peer: usize) -> Vec<Tensor> {
        let cargo = self.cargo.remove(&(channel, microbatch, peer));
        let cargo = cargo.expect("asked for before it arrived");
        self.waiting -= bytes(&cargo);
        cargo
    }

    /// The first of `peers` that has no free buffer.
    pub fn full(&self, channel: ChannelId, mut peers: std::ops::Range<usize>) -> Option<usize> {
        peers.find(|peer| self.credits[&(channel, *peer)] == 0)
    }

    /// Uses a buffer of a peer.
    pub fn spend(&mut self, channel: ChannelId, peer: usize) {
        *self.credits.get_mut(&(channel, peer)).expect("channels are in the plan") -= 1;
    }

    /// Notes that a peer has a free buffer again.
    pub fn refund(&mut self, channel: ChannelId, peer: usize) {
        *self.credits.get_mut(&(channel, peer)).expect("channels are in the plan") += 1;
    }

    /// Forgets how much there was in the last step; early cargo of this one is already here.
    pub fn begin(&mut self) {
        self.most = self.waiting;
    }

    /// Bytes of cargo that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The most bytes of cargo that waited at once in this step.
    pub fn most(&self) -> u64 {
        self.most
    }
}

fn bytes(cargo: &[Tensor]) -> u64 {
    cargo.iter().map(|tensor| tensor.byte_len() as u64).sum()
}
