//! What can be wrong with training text.

use std::{error::Error, io, path::PathBuf};

/// Why text cannot be turned into training sequences; names the file and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// Verb: `read`, `write`.
        doing: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A glob pattern is not well formed.
    #[error("`{pattern}` is no file pattern")]
    Pattern {
        /// As the job says.
        pattern: String,
        /// Where it is wrong.
        source: glob::PatternError,
    },
    /// There is no text at all.
    #[error("no text to train on: {what}")]
    Empty {
        /// What was looked for, and what to do about it.
        what: String,
    },
    /// One document is bad.
    #[error("{}{}: {reason}", path.display(), line.map(|n| format!(":{n}")).unwrap_or_default())]
    Document {
        /// File it stands in.
        path: PathBuf,
        /// Line or row in the file, counted from one.
        line: Option<u64>,
        /// Expected and got.
        reason: String,
    },
    /// A tokenizer cannot be read, trained or applied.
    #[error("tokenizer {what}")]
    Tokenizer {
        /// Which, and what failed.
        what: String,
        /// The library's reason.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The shares of a mix make no sense.
    #[error("corpus `{corpus}` has weight {weight}; expected a number above zero")]
    Weight {
        /// Name of the corpus.
        corpus: String,
        /// What the job says.
        weight: f64,
    },
}

/// Names the path and the verb of a failed file operation.
pub(super) fn cannot(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> DataError {
    let path = path.into();
    move |source| DataError::File { doing, path, source }
}
