//! The tensors of a checkpoint in their shards, each with a hash that is checked on reading.

use std::{collections::BTreeMap, path::Path};

use ops::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::error::CheckpointError;
use crate::shards;

/// What the index says of one tensor.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// File of the folder in which it stands.
    pub shard: String,
    /// Format of its elements.
    pub dtype: DType,
    /// Extents, slowest first.
    pub shape: Vec<usize>,
    /// Blake3 hash of its bytes, in hexadecimal.
    pub blake3: String,
}

impl Entry {
    fn new(tensor: &Tensor, shard: &str) -> Self {
        Entry {
            shard: shard.to_string(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            blake3: blake3::hash(tensor.bytes()).to_hex().to_string(),
        }
    }
}

/// Writes all tensors into `folder`, in name order, `limit` bytes of data to a file.
pub(super) fn write(
    folder: &Path,
    tensors: &BTreeMap<String, Tensor>,
    limit: usize,
) -> Result<BTreeMap<String, Entry>, CheckpointError> {
    let sizes = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.bytes().len()));
    let groups = shards::cut(sizes, limit);
    let mut entries = BTreeMap::new();
    for (index, names) in groups.iter().enumerate() {
        let shard = shards::name("tensors", index, groups.len());
        let path = folder.join(&shard);
        shards::write(&path, names.iter().map(|&name| (name, &tensors[name])))
            .map_err(|source| CheckpointError::Shard { path, source })?;
        let entry = |&name: &&str| (name.to_string(), Entry::new(&tensors[name], &shard));
        entries.extend(names.iter().map(entry));
    }
    Ok(entries)
}

/// Reads every tensor of the index and checks its format, shape and hash.
pub(super) fn read(
    folder: &Path,
    entries: &BTreeMap<String, Entry>,
) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
    let mut members: BTreeMap<&str, Vec<(&String, &Entry)>> = BTreeMap::new();
    for (name, entry) in entries {
        members.entry(&entry.shard).or_default().push((name, entry));
    }
    let mut tensors = BTreeMap::new();
    for (shard, members) in members {
        let path = folder.join(shard);
        let mut found = shards::read(&path)
            .map_err(|source| CheckpointError::Shard { path: path.clone(), source })?;
        for (name, entry) in members {
            let tensor = checked(name, entry, &path, found.remove(name))?;
            tensors.insert(name.clone(), tensor);
        }
    }
    Ok(tensors)
}

fn checked(
    name: &str,
    entry: &Entry,
    path: &Path,
    found: Option<Tensor>,
) -> Result<Tensor, CheckpointError> {
    let damaged = |expected: String, got: String| CheckpointError::Tensor {
        tensor: name.to_string(),
        path: path.to_path_buf(),
        expected,
        got,
    };
    let Some(tensor) = found else {
        return Err(damaged("to find it".into(), "a shard without it".into()));
    };
    if (entry.dtype, entry.shape.as_slice()) != (tensor.dtype(), tensor.shape()) {
        let expected = format!("{:?} {:?}", entry.dtype, entry.shape);
        return Err(damaged(expected, format!("{:?} {:?}", tensor.dtype(), tensor.shape())));
    }
    let hash = blake3::hash(tensor.bytes()).to_hex().to_string();
    if hash != entry.blake3 {
        return Err(damaged(format!("hash {}", entry.blake3), hash));
    }
    Ok(tensor)
}
