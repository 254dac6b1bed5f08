//! Folders of checkpoints: a checkpoint is there completely or not at all.
//!
//! A checkpoint is written into `.partial-step-*` and renamed to `step-*` when all its bytes are
//! on the disk. A second save of a step moves the first to `.replaced-step-*` for the moment
//! between two renames; whoever looks next moves it back if the process died in that moment.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::error::{CheckpointError, cannot};

const PARTIAL: &str = ".partial-";
const REPLACED: &str = ".replaced-";

/// Checkpoints of a directory, oldest first; none if the directory is not there.
///
/// # Errors
///
/// [`CheckpointError::File`] if the directory cannot be read.
pub fn all(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    recover(dir)?;
    let steps = entries(dir)?.into_iter().filter_map(|path| Some((step(&path)?, path)));
    let mut steps: Vec<(u64, PathBuf)> = steps.collect();
    steps.sort();
    Ok(steps.into_iter().map(|(_, path)| path).collect())
}

/// The newest checkpoint of a directory, if there is one.
///
/// # Errors
///
/// [`CheckpointError::File`] if the directory cannot be read.
pub fn latest(dir: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    Ok(all(dir)?.pop())
}

/// Removes all checkpoints of a directory but the newest `keep`; the newest one always stays.
///
/// # Errors
///
/// [`CheckpointError::File`] if a folder cannot be removed.
pub fn prune(dir: &Path, keep: usize) -> Result<(), CheckpointError> {
    let all = all(dir)?;
    for path in &all[..all.len().saturating_sub(keep.max(1))] {
        // A folder is taken out of sight first, so that none is ever seen half removed.
        let hidden = beside(path, PARTIAL);
        fs::rename(path, &hidden).map_err(cannot("rename", path))?;
        fs::remove_dir_all(&hidden).map_err(cannot("remove", &hidden))?;
    }
    Ok(())
}

/// Folder name of a step.
pub(super) fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// An empty folder in which the checkpoint of a step can be written; leftovers are removed.
pub(super) fn begin(dir: &Path, step: u64) -> Result<PathBuf, CheckpointError> {
    fs::create_dir_all(dir).map_err(cannot("create", dir))?;
    recover(dir)?;
    for leftover in entries(dir)? {
        let hidden = leftover.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if hidden.starts_with(PARTIAL) || hidden.starts_with(REPLACED) {
            fs::remove_dir_all(&leftover).map_err(cannot("remove", &leftover))?;
        }
    }
    let partial = beside(&dir.join(name(step)), PARTIAL);
    fs::create_dir(&partial).map_err(cannot("create", &partial))?;
    Ok(partial)
}

/// Makes a folder from [`begin`] the checkpoint of its step.
pub(super) fn publish(dir: &Path, step: u64, partial: &Path) -> Result<PathBuf, CheckpointError> {
    let done = dir.join(name(step));
    let replaced = beside(&done, REPLACED);
    sync(partial)?;
    if done.exists() {
        fs::rename(&done, &replaced).map_err(cannot("rename", &done))?;
    }
    fs::rename(partial, &done).map_err(cannot("rename", partial))?;
    sync(dir)?;
    if replaced.exists() {
        fs::remove_dir_all(&replaced).map_err(cannot("remove", &replaced))?;
    }
    Ok(done)
}

/// Moves back what a process that died between two renames had moved away.
fn recover(dir: &Path) -> Result<(), CheckpointError> {
    for path in entries(dir)? {
        let hidden = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Some(name) = hidden.strip_prefix(REPLACED) else { continue };
        let done = dir.join(name);
        if !done.exists() {
            fs::rename(&path, &done).map_err(cannot("rename", &path))?;
        }
    }
    Ok(())
}

/// Entries of a directory; none if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let read = fs::read_dir(dir).map_err(cannot("read", dir))?;
    read.map(|entry| entry.map(|e| e.path()).map_err(cannot("read", dir))).collect()
}

/// The step that a folder's name says.
fn step(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

fn beside(path: &Path, prefix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{prefix}{name}"))
}

/// Waits until the names in a folder are on the disk.
fn sync(folder: &Path) -> Result<(), CheckpointError> {
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(cannot("write", folder))
}
