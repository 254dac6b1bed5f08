//! Who takes part in a job, and where text comes from.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::{data, job::Train, quantity::ByteCount};

/// One actor of a job.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Actor {
    /// Documents.
    Corpus(Corpus),
    /// Several corpora by weight.
    Mix(Mix),
    /// The learner.
    Train(Box<Train>),
}

impl Actor {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Actor::Corpus(_) => "Corpus",
            Actor::Mix(_) => "Mix",
            Actor::Train(_) => "Train",
        }
    }
}

/// Documents from one source.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    /// Where they are read.
    pub from: Source,
}

/// Corpora by name, with the share of tokens that each gives; only ratios count.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Mix(pub BTreeMap<String, f64>);

/// Where documents are read.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Source {
    /// Every file that matches is one document.
    Text(String),
    /// Every text file of a folder and its subfolders is one document.
    Folder(PathBuf),
    /// One document a line.
    Jsonl {
        /// Files, `.jsonl` or `.jsonl.zst`.
        glob: String,
        /// Field with the text.
        field: String,
    },
    /// One document a row.
    Parquet {
        /// Files.
        glob: String,
        /// Column with the text.
        column: String,
    },
    /// Rust sources of the local cargo registry: text that every builder of this program has.
    RustSources(RustSources),
}

/// How much of the local cargo registry is read.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RustSources {
    /// Bytes of text at most.
    pub bytes: ByteCount,
}

impl Default for RustSources {
    fn default() -> Self {
        RustSources { bytes: ByteCount(8 << 20) }
    }
}

impl From<&Source> for data::Source {
    fn from(source: &Source) -> Self {
        match source.clone() {
            Source::Text(glob) => data::Source::Text { glob },
            Source::Folder(path) => data::Source::Folder { path },
            Source::Jsonl { glob, field } => data::Source::Jsonl { glob, field },
            Source::Parquet { glob, column } => data::Source::Parquet { glob, column },
            Source::RustSources(limit) => data::Source::RustSources { bytes: limit.bytes.0 },
        }
    }
}

/// How text becomes tokens.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Tokenizer {
    /// Every byte is a token; one more ends a document.
    #[default]
    Bytes,
    /// A `tokenizer.json`.
    File(PathBuf),
    /// Byte pairs, learnt from the corpus.
    Bpe {
        /// Tokens.
        vocab: usize,
    },
}

impl From<&Tokenizer> for data::Choice {
    fn from(tokenizer: &Tokenizer) -> Self {
        match tokenizer.clone() {
            Tokenizer::Bytes => data::Choice::Bytes,
            Tokenizer::File(path) => data::Choice::File(path),
            Tokenizer::Bpe { vocab } => data::Choice::Bpe { vocab },
        }
    }
}
