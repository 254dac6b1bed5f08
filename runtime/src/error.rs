//! Why a run ended.

use graphs::edge::Class;

use crate::{checkpoint::CheckpointError, feed::FeedError};

/// A run that cannot go on; nothing on disk is lost.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An actor failed.
    #[error("{actor} failed at {action}: {cause}")]
    Actor {
        /// Who.
        actor: String,
        /// What it was doing.
        action: String,
        /// Why it could not.
        cause: String,
    },
    /// A rank would hold more than its device does.
    #[error(
        "{actor} is out of memory at {action}: {class:?} grew by {grown} bytes, and its rank would \
         hold {held} of {limit}"
    )]
    Memory {
        /// Who.
        actor: String,
        /// What it was doing.
        action: String,
        /// The class of tensors that grew most.
        class: Class,
        /// By how much, in bytes.
        grown: u64,
        /// What the rank would hold, in bytes.
        held: u64,
        /// What its device holds, in bytes.
        limit: u64,
    },
    /// A GPU has no room for what an actor was to hold there.
    #[error("{actor} is out of memory at {action}: {cause}")]
    Room {
        /// Who.
        actor: String,
        /// What it was doing.
        action: String,
        /// How much there is.
        cause: String,
    },
    /// Nothing moves and nobody is at work.
    #[error("no progress for {seconds} s; who waits for whom:\n{story}")]
    Stuck {
        /// How long nothing moved.
        seconds: u64,
        /// One line for each waiting actor.
        story: String,
    },
    /// Another process of the run does not answer.
    #[error("process {process} does not answer any more")]
    Lost {
        /// Its number.
        process: usize,
    },
    /// Another process of the run was not started from the same.
    #[error("process {process}: {cause}")]
    Unlike {
        /// Its number.
        process: usize,
        /// What is not the same.
        cause: String,
    },
    /// Another process of the run cannot begin its part.
    #[error("process {process}: {text}")]
    Refused {
        /// Its number.
        process: usize,
        /// Exit code that it would have had alone.
        code: u8,
        /// Why, in its words.
        text: String,
    },
    /// A loss or gradient is not a number.
    #[error("step {step}: {what} is not finite")]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// Name of the tensor, or `loss`.
        what: String,
    },
    /// Weights to start from do not fit the model.
    #[error("{0}")]
    Weights(String),
    /// The data ended or could not be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the run could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {}", chain(source)),
    }
}
