//! How many messages a channel may hold, and which channels share a communicator.

use serde::{Deserialize, Serialize};

use crate::plan::Channel;

/// Buffers of each channel, for each pair of sender and receiver.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Credits {
    /// As few as the plan can run with, and some more.
    Least {
        /// Buffers beyond the fewest; each lets senders run ahead by one more message.
        #[serde(default = "one")]
        slack: usize,
    },
    /// So many; the plan is refused if it would hang with them.
    Fixed(usize),
}

fn one() -> usize {
    1
}

impl Default for Credits {
    fn default() -> Self {
        Credits::Least { slack: one() }
    }
}

/// Which channels share a communicator, as NCCL has them.
///
/// The members of a communicator must issue its operations in one common order: none starts
/// before the one that a member has issued before it is through, and a send and its receive are
/// one operation, in the order of both ends. Actors within a process exchange messages without
/// communicators, so there the choice changes nothing; that the plan cannot hang is proved for
/// it all the same.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Communicators {
    /// Every channel has its own, on which receives are posted ahead as far as buffers go.
    #[default]
    PerEdge,
    /// The channels between two stages share one, in both directions, and so do those between a
    /// stage and its experts.
    PerPair,
    /// All channels between stages share one; those between a stage and its experts, another.
    One,
}

impl Communicators {
    /// The first and the last of the stages that share a channel's communicator; none if the
    /// channel has one of its own.
    pub fn of(self, channel: &Channel) -> Option<(usize, usize)> {
        let (from, to) = (channel.from.0, channel.to.0);
        match self {
            Communicators::PerEdge => None,
            Communicators::One if from != to => Some((0, usize::MAX)),
            Communicators::PerPair | Communicators::One => Some((from.min(to), from.max(to))),
        }
    }
}
