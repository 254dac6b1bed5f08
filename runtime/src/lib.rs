//! Runs a plan: actors, mailboxes, credits, the optimizer phase, checkpoints, sampling.
//!
//! Reading order: [`cluster`] starts the actors and drives steps; [`worker`] is the actor that
//! computes, `program` how it runs instructions, `cargo` how tensors cross, [`flight`] one
//! microbatch under way, `phase` the optimizer phase; [`loader`], [`saver`] and [`metrics`] are the
//! actors beside them. The runtime knows no job file and no schedule by name: only plans.

pub mod address;
mod board;
mod brief;
mod cargo;
pub mod checkpoint;
pub mod cluster;
pub mod error;
pub mod feed;
pub mod flight;
pub mod holdings;
pub mod inference;
pub mod init;
pub mod loader;
mod mailbox;
pub mod message;
pub mod metrics;
mod phase;
pub mod post;
mod program;
pub mod rate;
pub mod report;
pub mod saver;
pub mod shards;
pub mod share;
mod tally;
pub mod verdict;
pub mod worker;

pub use crate::{
    cluster::{Cluster, Setup, Snapshot},
    error::RunError,
    feed::{Feed, FeedError},
    inference::{Inference, sample},
    report::StepReport,
};
