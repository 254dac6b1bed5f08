//! What actors say to each other.
//!
//! Tensors are reference counted, so a message inside one process copies no values. Every queue
//! is bounded by the plan: cargo by the credits of its channel, units by one step, gradients and
//! weights by the parameters of the stage.

use std::{sync::Arc, time::Instant};

use graphs::{
    flight::Batch,
    plan::{ChannelId, CopyStep},
};
use ops::Tensor;

use crate::{flights::FlightKey, verdict::Verdict};

/// A message to a compute actor.
#[derive(actix::Message, Clone, Debug)]
#[rtype(result = "()")]
pub enum Message {
    /// The next step is to be recorded; everybody has this before anybody begins the step, so that
    /// no early cargo is missed.
    Record {
        /// Begin of the step.
        since: Instant,
    },
    /// Start of a step: run the program, then the optimizer phase.
    Step,
    /// Tokens of a microbatch, from the loader to the stages that read them.
    Unit {
        /// Position in the actor's row of units.
        microbatch: usize,
        /// Token numbers `[t]`.
        tokens: Tensor,
        /// Token that follows each, `[t]`.
        targets: Tensor,
    },
    /// The token of a channel for one microbatch.
    Cargo {
        /// Channel it came through.
        channel: ChannelId,
        /// Microbatch it belongs to.
        microbatch: usize,
        /// Expert rank of the sender.
        peer: usize,
        /// What [`graphs::plan::Cargo`] says the channel carries.
        tensors: Vec<Tensor>,
        /// Begin and end of its way over a link, if it took one.
        travelled: Option<(Instant, Instant)>,
    },
    /// A buffer of a channel is free again.
    Credit {
        /// The channel, as the sender of its cargo knows it.
        channel: ChannelId,
        /// Expert rank of the consumer.
        peer: usize,
    },
    /// Gradient of a parameter summed over the lanes of all holders up to the sender, in f32: from
    /// each holder to the next, and from the last to the owner.
    Gradient {
        /// Index among the parameters of the model.
        parameter: usize,
        /// The sum.
        sum: Vec<f32>,
        /// Whether all lanes are in it.
        is_whole: bool,
    },
    /// What all ranks together found out about the step; owners update now.
    Verdict(Arc<Verdict>),
    /// New value of a parameter, from its owner to the other holders.
    Weight {
        /// Index among the parameters of the model.
        parameter: usize,
        /// Value in the format that forward and backward read.
        value: Tensor,
    },
    /// A copy to the host, or back, is done.
    Copied {
        /// Of which flight.
        key: FlightKey,
        /// Which way it went: [`CopyStep::Offload`] or [`CopyStep::Fetch`].
        step: CopyStep,
        /// The copies.
        batch: Batch<Tensor>,
        /// Begin and end of copying.
        interval: (Instant, Instant),
    },
    /// Asks an owner for the values and optimizer states of its parameters.
    Snapshot,
}

impl Message {
    /// Bytes of the tensors in it.
    pub fn bytes(&self) -> u64 {
        match self {
            Message::Cargo { tensors, .. } => {
                tensors.iter().map(|tensor| tensor.bytes().len() as u64).sum()
            }
            Message::Gradient { sum, .. } => size_of_val(sum.as_slice()) as u64,
            Message::Weight { value, .. } => value.bytes().len() as u64,
            _ => 0,
        }
    }
}
