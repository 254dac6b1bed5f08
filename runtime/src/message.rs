//! What actors say to each other.
//!
//! Tensors are reference counted, so a message inside one process copies no values. Every queue
//! is bounded by the plan: cargo by the credits of its channel, units by one step, gradients and
//! weights by the parameters of the stage.

use std::{sync::Arc, time::Instant};

use graphs::{
    flight::Batch,
    plan::{ChannelId, CopyStep},
    share::Exchange,
};
use ops::{Floats, Place, Tensor};

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
    /// Gradient of a slice of a parameter, in f32: the sender's own lane, or the sum over all
    /// lanes up to the sender's; see [`graphs::share::Reduction`].
    Gradient {
        /// Index among the parameters of the model.
        parameter: usize,
        /// Holder of the slice, by position among the holders.
        slice: usize,
        /// Holder that sends.
        from: usize,
        /// The sum.
        sum: Floats,
        /// Begin and end of its way over a link, if it took one.
        travelled: Option<(Instant, Instant)>,
    },
    /// What all ranks together found out about the step; slices are updated now.
    Verdict(Arc<Verdict>),
    /// What Newton-Schulz is to work on, from the holder of a slice to the owner of the matrix.
    Momentum {
        /// Index among the parameters of the model.
        parameter: usize,
        /// Holder of the slice, which sends.
        from: usize,
        /// Rows of the direction, in f32.
        direction: Floats,
    },
    /// What Newton-Schulz made of it, from the owner to the holder of a slice.
    Update {
        /// Index among the parameters of the model.
        parameter: usize,
        /// The slice's rows, in the format of activations.
        rows: Tensor,
    },
    /// New value of a slice, from its holder to the other holders of the parameter.
    Weight {
        /// Index among the parameters of the model.
        parameter: usize,
        /// Holder of the slice, which sends.
        from: usize,
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
    /// Asks for the values and optimizer states of all slices.
    Snapshot,
}

impl Message {
    /// Bytes that take a link: those of cargo, and of what the optimizer phase exchanges.
    pub fn bytes(&self) -> u64 {
        match self {
            Message::Cargo { tensors, .. } => {
                tensors.iter().map(|tensor| tensor.byte_len() as u64).sum()
            }
            other => other.exchange().total(),
        }
    }

    /// The same with its tensors where a rank lives, if they are on another GPU; waits for them to
    /// arrive.
    pub fn sent(mut self, to: &Place) -> Self {
        match &mut self {
            Message::Cargo { tensors, .. } => *tensors = Tensor::sent(tensors, to),
            Message::Gradient { sum: floats, .. } | Message::Momentum { direction: floats, .. } => {
                *floats = std::mem::take(floats).sent(to);
            }
            Message::Update { rows: tensor, .. } | Message::Weight { value: tensor, .. } => {
                *tensor = Tensor::sent(std::slice::from_ref(tensor), to).remove(0);
            }
            _ => {}
        }
        self
    }

    /// Writes down when it was on its way, in those that tell.
    pub fn note_travel(&mut self, interval: (Instant, Instant)) {
        match self {
            Message::Cargo { travelled, .. } | Message::Gradient { travelled, .. } => {
                *travelled = Some(interval);
            }
            _ => {}
        }
    }

    /// The bytes of the optimizer phase that it carries.
    pub fn exchange(&self) -> Exchange {
        let mut bytes = Exchange::default();
        match self {
            Message::Gradient { sum, .. } => bytes.gradients = sum.bytes(),
            Message::Momentum { direction, .. } => bytes.momentum = direction.bytes(),
            Message::Update { rows, .. } => bytes.updates = rows.byte_len() as u64,
            Message::Weight { value, .. } => bytes.values = value.byte_len() as u64,
            _ => {}
        }
        bytes
    }
}
