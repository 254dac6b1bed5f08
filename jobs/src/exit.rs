//! Exit codes, and failures that carry one.

use runtime::{RunError, checkpoint::CheckpointError, error::chain};

use crate::{folder::FolderError, huggingface, prepare::PrepareError};

/// The user stopped the run; everything is saved.
pub const INTERRUPTED: u8 = 130;

/// Why a command ended early: an exit code and a text for the user.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Exit code, as `troupe explain exit` lists them.
    pub code: u8,
    /// What went wrong, with its causes.
    pub text: String,
}

impl Failure {
    /// The command line asks for something that cannot be.
    pub fn usage(text: String) -> Self {
        Failure { code: 2, text }
    }

    /// A file or device of this machine is not as it must be.
    pub fn environment(text: String) -> Self {
        Failure { code: 15, text }
    }

    /// Says which phase of a run it is about, if there are several.
    pub fn in_phase(self, name: Option<&str>) -> Self {
        let Some(name) = name else { return self };
        Failure { text: format!("phase `{name}`: {}", self.text), ..self }
    }

    /// Two plans differ.
    pub fn differs(text: String) -> Self {
        Failure { code: 5, text }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::Actor { .. } | RunError::Lost { .. } => 10,
            RunError::Refused { code, .. } => *code,
            RunError::Stuck { .. } => 11,
            RunError::NotFinite { .. } => 12,
            RunError::Memory { .. } | RunError::Room { .. } => 13,
            RunError::Checkpoint(CheckpointError::File { doing, .. }) if *doing != "read" => 15,
            RunError::Weights(_) | RunError::Checkpoint(_) => 14,
            RunError::Feed(_) | RunError::Write { .. } | RunError::Unlike { .. } => 15,
        };
        Failure { code, text: chain(&error) }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        RunError::from(error).into()
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        let code = match &error {
            PrepareError::Run(_) => 1,
            PrepareError::Folder(error) if is_damaged(error) => 14,
            PrepareError::Data(_) | PrepareError::Folder(_) => 15,
            PrepareError::Vocabulary { .. } | PrepareError::Plan(_) => 3,
            PrepareError::NoRotation => 3,
            PrepareError::OtherModel { .. } => 14,
        };
        match error {
            PrepareError::Run(error) => error.into(),
            error => Failure { code, text: chain(&error) },
        }
    }
}

/// Whether a folder of weights is wrong in itself, and not merely out of reach.
fn is_damaged(error: &huggingface::FolderError) -> bool {
    use huggingface::FolderError as Error;
    match error {
        Error::Json { .. } | Error::Config { .. } | Error::Shard { .. } => true,
        Error::Tensors { .. } => true,
        Error::File { .. } | Error::Taken { .. } | Error::Tokenizer(_) => false,
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Prepare(error) => error.into(),
            FolderError::Checkpoint(error) => error.into(),
            FolderError::Job(_) => Failure { code: 14, text: chain(&error) },
            FolderError::Taken(_) => Failure { code: 2, text: chain(&error) },
            error => Failure { code: 15, text: chain(&error) },
        }
    }
}
