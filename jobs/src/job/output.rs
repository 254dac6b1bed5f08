//! What a run leaves behind.

use std::path::PathBuf;

use serde::Deserialize;

use crate::{job::Precision, quantity::Every};

/// Where and how often the state of a run is kept.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Folder of the run.
    pub dir: PathBuf,
    /// How often.
    pub every: Every,
    /// How many of the newest are kept.
    #[serde(default = "three")]
    pub keep: usize,
    /// What is written at the end of the run, beside.
    #[serde(default)]
    pub export: Option<Export>,
}

fn three() -> usize {
    3
}

/// A form of the model for other programs.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Export {
    /// A folder that transformers reads.
    HuggingFace {
        /// Format of the weights.
        dtype: Precision,
    },
}

/// Where figures of each step go.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Metrics {
    /// A file with one JSON object a step.
    Jsonl(PathBuf),
}
