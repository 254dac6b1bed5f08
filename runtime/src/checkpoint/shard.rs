//! Tensors cut into safetensors files of bounded size, and read back with their hashes checked.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use ops::{DType, Tensor};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use super::error::{CheckpointError, cannot};

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

/// A tensor as safetensors wants to see it.
struct Shown<'a>(&'a Tensor);

impl View for Shown<'_> {
    fn dtype(&self) -> Dtype {
        dtype(self.0.dtype())
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.bytes())
    }

    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

fn dtype(ours: DType) -> Dtype {
    match ours {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
    }
}

/// Writes all tensors into `folder`, in name order, `shard_bytes` of data to a file.
///
/// A tensor larger than that gets a file of its own. Every file is on the disk on return.
pub(super) fn write(
    folder: &Path,
    tensors: &BTreeMap<String, Tensor>,
    shard_bytes: usize,
) -> Result<BTreeMap<String, Entry>, CheckpointError> {
    let shards = cut(tensors, shard_bytes);
    let mut entries = BTreeMap::new();
    for (number, names) in shards.iter().enumerate() {
        let shard = format!("tensors-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        let path = folder.join(&shard);
        let shown = names.iter().map(|&name| (name, Shown(&tensors[name])));
        safetensors::serialize_to_file(shown, None, &path)
            .map_err(|source| CheckpointError::Shard { path: path.clone(), source })?;
        fs::File::open(&path).and_then(|f| f.sync_all()).map_err(cannot("write", &path))?;
        entries.extend(names.iter().map(|&name| (name.clone(), entry(&tensors[name], &shard))));
    }
    Ok(entries)
}

/// Names of each shard; a shard is closed when the next tensor would make it too large.
fn cut(tensors: &BTreeMap<String, Tensor>, shard_bytes: usize) -> Vec<Vec<&String>> {
    let mut shards: Vec<Vec<&String>> = Vec::new();
    let mut room = 0;
    for (name, tensor) in tensors {
        let bytes = tensor.bytes().len();
        match shards.last_mut() {
            Some(shard) if bytes <= room => shard.push(name),
            _ => {
                shards.push(vec![name]);
                room = shard_bytes;
            }
        }
        room = room.saturating_sub(bytes);
    }
    shards
}

fn entry(tensor: &Tensor, shard: &str) -> Entry {
    Entry {
        shard: shard.to_string(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        blake3: hash(tensor.bytes()),
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Reads every tensor of the index and checks its format, shape and hash.
pub(super) fn read(
    folder: &Path,
    entries: &BTreeMap<String, Entry>,
) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
    let mut shards: BTreeMap<&str, Vec<(&String, &Entry)>> = BTreeMap::new();
    for (name, entry) in entries {
        shards.entry(&entry.shard).or_default().push((name, entry));
    }
    let mut tensors = BTreeMap::new();
    for (shard, members) in shards {
        let path = folder.join(shard);
        let bytes = Bytes::from(fs::read(&path).map_err(cannot("read", &path))?);
        let views = SafeTensors::deserialize(&bytes)
            .map_err(|source| CheckpointError::Shard { path: path.clone(), source })?;
        for (name, entry) in members {
            tensors.insert(name.clone(), checked(name, entry, &path, &bytes, &views)?);
        }
    }
    Ok(tensors)
}

fn checked(
    name: &str,
    entry: &Entry,
    path: &Path,
    bytes: &Bytes,
    views: &SafeTensors,
) -> Result<Tensor, CheckpointError> {
    let damaged = |expected: String, got: String| CheckpointError::Tensor {
        tensor: name.to_string(),
        path: path.to_path_buf(),
        expected,
        got,
    };
    let view = views
        .tensor(name)
        .map_err(|_| damaged("to find it".into(), "a shard without it".into()))?;
    let (wanted, got) = (dtype(entry.dtype), view.dtype());
    if (wanted, entry.shape.as_slice()) != (got, view.shape()) {
        let expected = format!("{wanted} {:?}", entry.shape);
        return Err(damaged(expected, format!("{got} {:?}", view.shape())));
    }
    let found = hash(view.data());
    if found != entry.blake3 {
        return Err(damaged(format!("hash {}", entry.blake3), found));
    }
    Ok(Tensor::from_bytes(&entry.shape, entry.dtype, bytes.slice_ref(view.data())))
}
