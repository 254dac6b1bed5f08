//! Runs a plan: actors, mailboxes, credits, the optimizer phase, checkpoints, sampling.
//!
//! Reading order: [`cluster`] drives steps of the actors that `crew` starts; `worker` is the actor
//! that computes, `program` how it runs instructions, `cargo` how tensors cross, `flights` the
//! microbatches under way, `phase` the optimizer phase, [`snapshot`] what a run leaves; `loader`,
//! [`saver`] and [`metrics`] are the actors beside them; [`processes`] joins several processes. The
//! runtime knows no job file and no schedule by name: only plans.

mod arena;
mod board;
mod brief;
mod cargo;
pub mod checkpoint;
pub mod cluster;
mod copies;
mod crew;
mod digest;
pub mod error;
pub mod feed;
mod flights;
mod holdings;
pub mod inference;
pub mod init;
pub mod lanes;
mod loader;
mod mailbox;
mod message;
pub mod metrics;
mod moments;
mod pace;
mod phase;
mod post;
pub mod processes;
mod program;
pub mod rate;
pub mod report;
pub mod saver;
pub mod shards;
pub mod snapshot;
mod tally;
pub mod trace;
mod verdict;
mod worker;

pub use crate::{
    cluster::{Cluster, Setup},
    error::RunError,
    feed::{Feed, FeedError},
    inference::{Draft, Inference, Reading, Session, Taste, Writing, sample},
    report::StepReport,
    snapshot::Snapshot,
};
