//! Checkpoints: weights, optimizer state and the position in the data, in one folder a step.
//!
//! ```text
//! step-00000042/
//!   tensors-00001-of-00002.safetensors   bounded in size
//!   tensors-00002-of-00002.safetensors
//!   index.json                           shard, format, shape and hash of each tensor; step, feed
//!   job.ron                              the resolved job
//! ```
//!
//! Tensors stand under logical names, whole, so that a run may continue under another plan.
//! A folder named `step-*` is complete: it was renamed when all its bytes were on the disk.

mod error;
mod folder;
mod shard;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use ops::Tensor;
use serde::{Deserialize, Serialize};

use self::error::cannot;
pub use self::{
    error::CheckpointError,
    folder::{all, latest, prune},
    shard::Entry,
};

/// Layout version of the folder.
const SCHEMA: u32 = 1;

/// Bytes of tensor data in one shard.
const SHARD_BYTES: usize = 1 << 30;

/// All that a run needs to continue.
#[derive(Clone, Debug)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Phase of the job that trained the last of them, if the job has phases.
    pub phase: Option<String>,
    /// Position of the feed, from [`crate::feed::Feed::position`].
    pub feed: serde_json::Value,
    /// The resolved job, as text.
    pub job: String,
    /// Weights and optimizer state by logical name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// `index.json`: what stands in the folder.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Layout version.
    pub schema: u32,
    /// Version of the tool that wrote the folder.
    pub version: String,
    /// Steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Phase of the job that trained the last of them, if the job has phases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Position of the feed.
    pub feed: serde_json::Value,
    /// Blake3 hash of `job.ron`.
    pub job: String,
    /// Every tensor by logical name.
    pub tensors: BTreeMap<String, Entry>,
    /// Blake3 hash of this index, written with this field empty.
    pub seal: String,
}

impl State {
    /// Writes the folder of this step below `dir` and returns its path.
    ///
    /// An earlier checkpoint of the same step is replaced. If the process dies on the way, `dir`
    /// still holds what it held before.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] or [`CheckpointError::Shard`] if the disk refuses.
    pub fn save(&self, dir: &Path) -> Result<PathBuf, CheckpointError> {
        self.save_in(dir, SHARD_BYTES)
    }

    fn save_in(&self, dir: &Path, shard_bytes: usize) -> Result<PathBuf, CheckpointError> {
        let partial = folder::begin(dir, self.step)?;
        let tensors = shard::write(&partial, &self.tensors, shard_bytes)?;
        let index = self.index(tensors);
        let json = serde_json::to_vec_pretty(&index).expect("an index is plain data");
        write(&partial.join("job.ron"), self.job.as_bytes())?;
        write(&partial.join("index.json"), &json)?;
        folder::publish(dir, self.step, &partial)
    }

    fn index(&self, tensors: BTreeMap<String, Entry>) -> Index {
        let index = Index {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_string(),
            step: self.step,
            tokens: self.tokens,
            phase: self.phase.clone(),
            feed: self.feed.clone(),
            job: hash(self.job.as_bytes()),
            tensors,
            seal: String::new(),
        };
        Index { seal: index.computed_seal(), ..index }
    }

    /// Reads the checkpoint in `folder`, every byte checked against its hash.
    ///
    /// # Errors
    ///
    /// The variant of [`CheckpointError`] that names the damaged file or tensor.
    pub fn load(folder: &Path) -> Result<State, CheckpointError> {
        let index = Index::read(folder)?;
        let path = folder.join("job.ron");
        let job = fs::read_to_string(&path).map_err(cannot("read", &path))?;
        if hash(job.as_bytes()) != index.job {
            let reason = "its text is not what the index was written for".into();
            return Err(CheckpointError::Index { path, reason });
        }
        let tensors = shard::read(folder, &index.tensors)?;
        let Index { step, tokens, phase, feed, .. } = index;
        Ok(State { step, tokens, phase, feed, job, tensors })
    }
}

impl Index {
    /// Reads the index of a checkpoint without its tensors.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] if there is none, [`CheckpointError::Index`] if it is damaged or
    /// of another layout version.
    pub fn read(folder: &Path) -> Result<Index, CheckpointError> {
        let path = folder.join("index.json");
        let json = fs::read(&path).map_err(cannot("read", &path))?;
        let damaged = |reason: String| CheckpointError::Index { path: path.clone(), reason };
        let index: Index =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if index.schema != SCHEMA {
            return Err(damaged(format!("expected schema {SCHEMA}, got {}", index.schema)));
        }
        let seal = index.computed_seal();
        if index.seal != seal {
            return Err(damaged(format!("expected seal {}, got {seal}", index.seal)));
        }
        Ok(index)
    }

    fn computed_seal(&self) -> String {
        let open = Index { seal: String::new(), ..self.clone() };
        hash(&serde_json::to_vec(&open).expect("an index is plain data"))
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Writes a file and waits until it is on the disk.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    fs::File::create(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(cannot("write", path))
}

#[cfg(test)]
mod tests {
    use ops::DType;
    use tempfile::TempDir;

    use super::*;

    fn state(step: u64) -> State {
        let ramp = |n: usize| (0..n).map(|i| i as f32 + step as f32).collect::<Vec<_>>();
        let tensors = [
            ("a.weight", Tensor::from_f32(&[4, 4], ramp(16))),
            ("b.weight", Tensor::rounded(&[8], ramp(8), DType::Bf16)),
            ("b.weight.momentum", Tensor::from_f32(&[8], ramp(8))),
            ("c.count", Tensor::from_i32(&[0], vec![])),
        ];
        State {
            step,
            tokens: step * 100,
            phase: step.is_multiple_of(2).then(|| "main".into()),
            feed: serde_json::json!({"mix": [step, 2]}),
            job: "Job(name: \"x\")".into(),
            tensors: tensors.into_iter().map(|(name, t)| (name.into(), t)).collect(),
        }
    }

    fn same(a: &State, b: &State) {
        assert_eq!((a.step, a.tokens, &a.phase), (b.step, b.tokens, &b.phase));
        assert_eq!((&a.feed, &a.job), (&b.feed, &b.job));
        assert_eq!(a.tensors.len(), b.tensors.len());
        for ((name, x), (other, y)) in a.tensors.iter().zip(&b.tensors) {
            assert_eq!((name, x.shape(), x.dtype()), (other, y.shape(), y.dtype()));
            assert_eq!(x.bytes(), y.bytes(), "{name}");
        }
    }

    /// Saves in small shards, spoils one file, and returns what loading says.
    fn refusal(file: &str, spoil: impl Fn(&mut Vec<u8>)) -> String {
        let dir = TempDir::new().unwrap();
        let folder = state(3).save_in(dir.path(), 64).unwrap();
        let path = folder.join(file);
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let error = State::load(&folder).unwrap_err();
        error.to_string().replace(&folder.display().to_string(), "")
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was() {
        let dir = TempDir::new().unwrap();
        for shard_bytes in [1, 64, 80, 1 << 20] {
            let folder = state(42).save_in(dir.path(), shard_bytes).unwrap();
            assert_eq!(folder, dir.path().join("step-00000042"));
            same(&state(42), &State::load(&folder).unwrap());
        }
    }

    #[test]
    fn shards_are_bounded_and_numbered_of_their_count() {
        let dir = TempDir::new().unwrap();
        let folder = state(1).save_in(dir.path(), 64).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let shards = ["tensors-00001-of-00002.safetensors", "tensors-00002-of-00002.safetensors"];
        assert_eq!(names, ["index.json", "job.ron", shards[0], shards[1]]);
    }

    #[test]
    fn a_save_that_was_killed_leaves_the_one_before() {
        let dir = TempDir::new().unwrap();
        let good = state(1).save(dir.path()).unwrap();
        let partial = folder::begin(dir.path(), 2).unwrap();
        shard::write(&partial, &state(2).tensors, 64).unwrap();
        assert_eq!(latest(dir.path()).unwrap(), Some(good));
        let next = state(2).save(dir.path()).unwrap();
        assert_eq!(latest(dir.path()).unwrap(), Some(next));
        assert!(!partial.exists());
    }

    #[test]
    fn a_step_saved_again_is_replaced_and_survives_a_kill_between_the_renames() {
        let dir = TempDir::new().unwrap();
        let done = state(5).save(dir.path()).unwrap();
        let second = State { tokens: 7, ..state(5) };
        second.save(dir.path()).unwrap();
        same(&second, &State::load(&done).unwrap());
        fs::rename(&done, dir.path().join(".replaced-step-00000005")).unwrap();
        assert_eq!(latest(dir.path()).unwrap(), Some(done.clone()));
        same(&second, &State::load(&done).unwrap());
    }

    #[test]
    fn the_newest_stay_and_numbers_are_compared_as_numbers() {
        let dir = TempDir::new().unwrap();
        assert_eq!(latest(dir.path()).unwrap(), None);
        assert_eq!(latest(&dir.path().join("nowhere")).unwrap(), None);
        for step in [9, 123_456_789, 10] {
            state(step).save(dir.path()).unwrap();
        }
        prune(dir.path(), 2).unwrap();
        let names: Vec<_> =
            all(dir.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["step-00000010", "step-123456789"]);
        prune(dir.path(), 0).unwrap();
        assert_eq!(all(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_truncated_shard_is_named() {
        let text = refusal("tensors-00002-of-00002.safetensors", |bytes| {
            bytes.truncate(bytes.len() - 1);
        });
        assert_eq!(text, "shard /tensors-00002-of-00002.safetensors is damaged or not written");
    }

    #[test]
    fn a_flipped_byte_is_found_and_its_tensor_named() {
        let text = refusal("tensors-00001-of-00002.safetensors", |bytes| {
            *bytes.last_mut().unwrap() ^= 1;
        });
        let start = "tensor `a.weight` in /tensors-00001-of-00002.safetensors is damaged: expected";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn a_changed_index_or_job_is_refused() {
        let text = refusal("index.json", |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            *bytes = text.replace("\"tokens\": 300", "\"tokens\": 301").into_bytes();
        });
        assert!(text.starts_with("/index.json is damaged: expected seal"), "{text}");
        let text = refusal("job.ron", |bytes| bytes.push(b' '));
        assert!(text.starts_with("/job.ron is damaged"), "{text}");
    }
}
