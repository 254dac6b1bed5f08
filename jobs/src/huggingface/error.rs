//! What can be wrong with a Hugging Face folder.

use std::{io, path::PathBuf};

use runtime::shards::ShardError;

/// Why a folder was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
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
    /// A file is not the JSON it should be.
    #[error("{} is not understood", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// The model is not one of the family, or not one this tool computes.
    #[error("{} describes another model:{}", path.display(), listed(problems))]
    Config {
        /// The `config.json`.
        path: PathBuf,
        /// Expected and got, field by field.
        problems: Vec<String>,
    },
    /// A file of tensors is damaged.
    #[error("{} cannot be read or written", path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ShardError,
    },
    /// The tensors are not those of the model.
    #[error("the tensors for {} do not fit the model:{}", path.display(), listed(problems))]
    Tensors {
        /// The folder.
        path: PathBuf,
        /// Missing, ill-shaped and unknown tensors, by name.
        problems: Vec<String>,
    },
    /// The place of an export is taken by something else.
    #[error("{} holds something that is no exported model; choose another folder", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The tokenizer has no `tokenizer.json` form.
    #[error("the tokenizer cannot be exported")]
    Tokenizer(#[from] crate::data::DataError),
}

/// Problems that are printed before the rest is only counted.
const SHOWN: usize = 20;

fn listed(problems: &[String]) -> String {
    let mut text: String =
        problems.iter().take(SHOWN).map(|problem| format!("\n  {problem}")).collect();
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", problems.len() - SHOWN));
    }
    text
}

/// Names the path and the verb of a failed file operation.
pub(super) fn cannot(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.into();
    move |source| FolderError::File { doing, path, source }
}
