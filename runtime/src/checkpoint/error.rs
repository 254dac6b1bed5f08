//! What can be wrong with a checkpoint folder.

use std::{io, path::PathBuf};

use crate::shards::ShardError;

/// Why a checkpoint was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// Verb: `read`, `write`, `rename`.
        doing: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `index.json` is not one this version wrote.
    #[error("{} is damaged: {reason}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard is no whole safetensors file, or the disk refuses it.
    #[error("shard {} is damaged or not written", path.display())]
    Shard {
        /// The shard.
        path: PathBuf,
        /// What the reader found.
        source: ShardError,
    },
    /// A tensor is not what the index says.
    #[error("tensor `{tensor}` in {} is damaged: expected {expected}, got {got}", path.display())]
    Tensor {
        /// Logical name.
        tensor: String,
        /// The shard it should stand in.
        path: PathBuf,
        /// What the index says.
        expected: String,
        /// What the shard holds.
        got: String,
    },
}

/// Names the path and the verb of a failed file operation.
pub(super) fn cannot(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.into();
    move |source| CheckpointError::File { doing, path, source }
}
