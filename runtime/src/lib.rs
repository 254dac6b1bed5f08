//! Runs a plan: actors, mailboxes, optimizer phase, checkpoints, generation.

pub mod checkpoint;
pub mod feed;
pub mod shards;
