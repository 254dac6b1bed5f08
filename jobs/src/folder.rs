//! The folder of a run, and finding a trained model in a folder of any kind.
//!
//! ```text
//! runs/k2-nano/
//!   job.ron         the resolved job
//!   tokenizer.json  how its text became tokens
//!   metrics.jsonl   one object a step
//!   loss.svg        the curve
//!   step-00000300/  checkpoints
//!   export/         the model for other programs
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use graphs::{Decoder, ModelGraph};
use ops::Tensor;
use runtime::checkpoint::{self, State};

use crate::{
    data::{END, Tokenizer},
    huggingface,
    prepare::{self, PrepareError},
};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is neither a checkpoint nor an export.
    #[error("{0} holds no checkpoint and no config.json of an export")]
    NoModel(PathBuf),
    /// There is a run already.
    #[error("{0} holds a run already; `troupe resume {0}` goes on with it")]
    Taken(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}")]
    File {
        /// Read or write.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The job inside a checkpoint cannot be read by this version.
    #[error("the job in {0} cannot be read")]
    Job(PathBuf),
    /// A checkpoint is damaged.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// The model or tokenizer cannot be made.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// A trained model out of a folder.
pub struct Trained {
    /// The model.
    pub graph: ModelGraph,
    /// The same in a few numbers, if it is of the family that can be exported.
    pub decoder: Option<Decoder>,
    /// Its weights by name; optimizer states of a checkpoint too.
    pub tensors: BTreeMap<String, Tensor>,
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// Tokens of a sequence in training.
    pub context: usize,
}

/// Makes the folder of a new run: `dir` if it is free, or the first free `dir-2`, `dir-3`, ..
/// if `may_move`.
///
/// # Errors
///
/// [`FolderError::Taken`] if `dir` holds checkpoints and may not move.
pub fn create(dir: &Path, may_move: bool) -> Result<PathBuf, FolderError> {
    let is_taken = |path: &Path| path.join("job.ron").exists();
    let numbered = |n: usize| PathBuf::from(format!("{}-{n}", dir.display()));
    let path = match (is_taken(dir), may_move) {
        (false, _) => dir.to_path_buf(),
        (true, false) => return Err(FolderError::Taken(dir.to_path_buf())),
        (true, true) => (2..).map(numbered).find(|path| !is_taken(path)).unwrap_or_default(),
    };
    fs::create_dir_all(&path).map_err(cannot("make", &path))?;
    Ok(path)
}

/// Writes a small text file, which nobody sees before it is whole.
///
/// # Errors
///
/// [`FolderError::File`].
pub fn put(path: &Path, text: &str) -> Result<(), FolderError> {
    let partial = path.with_extension("partial");
    fs::write(&partial, text).map_err(cannot("write", &partial))?;
    fs::rename(&partial, path).map_err(cannot("write", path))
}

fn cannot<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> FolderError + 'a {
    move |source| FolderError::File { doing, path: path.to_path_buf(), source }
}

/// The newest checkpoint in a folder, or the folder itself if it is one.
///
/// # Errors
///
/// What the disk refuses.
pub fn newest(dir: &Path) -> Result<Option<PathBuf>, FolderError> {
    if dir.join("index.json").exists() {
        return Ok(Some(dir.to_path_buf()));
    }
    Ok(checkpoint::latest(dir)?)
}

/// Reads a trained model from the folder of a run, a checkpoint or an export.
///
/// # Errors
///
/// [`FolderError::NoModel`] if it is none of these, and whatever is wrong with it.
pub fn open(dir: &Path) -> Result<Trained, FolderError> {
    let trained = match newest(dir) {
        _ if dir.join("config.json").exists() => open_export(dir)?,
        Ok(Some(folder)) => open_checkpoint(&folder)?,
        _ => return Err(FolderError::NoModel(dir.to_path_buf())),
    };
    prepare::tokens_fit(&trained.graph, &trained.tokenizer)?;
    Ok(trained)
}

fn open_export(dir: &Path) -> Result<Trained, FolderError> {
    let read = huggingface::read(dir).map_err(PrepareError::from)?;
    let graph = prepare::of_decoder(&read.decoder)?;
    let tokenizer = match &read.tokenizer {
        Some(json) => Tokenizer::from_json(json, END),
        None => Tokenizer::from_json(&read_text(&dir.join("tokenizer.json"))?, END),
    };
    Ok(Trained {
        graph,
        decoder: Some(read.decoder),
        tensors: read.tensors,
        tokenizer: tokenizer.map_err(PrepareError::from)?,
        context: read.positions,
    })
}

fn open_checkpoint(folder: &Path) -> Result<Trained, FolderError> {
    let state = State::load(folder)?;
    let job =
        crate::load_resolved(&state.job).map_err(|_| FolderError::Job(folder.join("job.ron")))?;
    let phase = job.phases().into_iter().find(|it| it.name == state.phase);
    let phase = phase.ok_or_else(|| FolderError::Job(folder.join("job.ron")))?;
    let network = prepare::shape(&phase.job)?;
    let run = folder.parent().unwrap_or(folder);
    let json = read_text(&run.join("tokenizer.json"))?;
    let tokenizer = Tokenizer::from_json(&json, END).map_err(PrepareError::from)?;
    Ok(Trained {
        graph: network.graph,
        decoder: network.decoder,
        tensors: state.tensors,
        tokenizer,
        context: phase.job.learner().1.context.0 as usize,
    })
}

fn read_text(path: &Path) -> Result<String, FolderError> {
    fs::read_to_string(path).map_err(cannot("read", path))
}

/// Where tokenised text is kept between runs: `$TROUPE_CACHE`, or the user's cache folder.
pub fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("TROUPE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("troupe")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/troupe")))
        .unwrap_or_else(|| std::env::temp_dir().join("troupe-cache"))
}
