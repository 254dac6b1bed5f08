//! Reads a folder and checks that it is the whole model and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use graphs::decoder::Decoder;
use ops::Tensor;
use runtime::shards;
use serde_json::{Map, Value};

use super::{
    config,
    error::{FolderError, cannot},
    expected,
};

/// What a folder holds.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Shape of the model.
    pub decoder: Decoder,
    /// Greatest number of tokens of a text.
    pub positions: usize,
    /// All parameters by name, in the format of the folder; F16 is widened to F32.
    pub tensors: BTreeMap<String, Tensor>,
    /// Text of `tokenizer.json`, if there is one.
    pub tokenizer: Option<String>,
}

/// Reads a model of the family from a folder.
///
/// # Errors
///
/// [`FolderError::Config`] with every field that describes another model,
/// [`FolderError::Tensors`] with every tensor that is missing, unknown or ill-shaped, and what
/// the disk refuses.
pub fn read(dir: &Path) -> Result<Imported, FolderError> {
    let (decoder, positions) = shape(dir)?;
    let tensors = fitting(dir, &decoder, all_tensors(dir)?)?;
    let path = dir.join("tokenizer.json");
    let tokenizer = match path.exists() {
        true => Some(fs::read_to_string(&path).map_err(cannot("read", &path))?),
        false => None,
    };
    Ok(Imported { decoder, positions, tensors, tokenizer })
}

/// The shape of a folder's model, and the greatest number of tokens of a text; reads no weights.
///
/// # Errors
///
/// [`FolderError::Config`] with every field that describes another model, and what the disk
/// refuses.
pub fn shape(dir: &Path) -> Result<(Decoder, usize), FolderError> {
    let path = dir.join("config.json");
    let config: Map<String, Value> = json(&path)?;
    config::understood(&config).map_err(|problems| FolderError::Config { path, problems })
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, FolderError> {
    let text = fs::read_to_string(path).map_err(cannot("read", path))?;
    serde_json::from_str(&text)
        .map_err(|source| FolderError::Json { path: path.to_path_buf(), source })
}

/// The index of a folder with many shards.
#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Tensors of all shards, or of the only file.
fn all_tensors(dir: &Path) -> Result<BTreeMap<String, Tensor>, FolderError> {
    let index = dir.join("model.safetensors.index.json");
    let files: BTreeSet<String> = match index.exists() {
        true => json::<Index>(&index)?.weight_map.into_values().collect(),
        false => ["model.safetensors".to_string()].into(),
    };
    let mut tensors = BTreeMap::new();
    for file in files {
        let path = dir.join(file);
        let shard = shards::read(&path).map_err(|source| FolderError::Shard { path, source })?;
        tensors.extend(shard);
    }
    Ok(tensors)
}

/// The model's parameters, if the tensors are these and no others.
fn fitting(
    dir: &Path,
    decoder: &Decoder,
    mut found: BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, FolderError> {
    let mut tensors = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, shape) in expected(dir, decoder)? {
        match found.remove(&name) {
            None => problems.push(format!("{name}: expected {shape:?}, got none")),
            Some(tensor) if tensor.shape() != shape => {
                problems.push(format!("{name}: expected {shape:?}, got {:?}", tensor.shape()));
            }
            Some(tensor) => {
                tensors.insert(name, tensor);
            }
        }
    }
    // Frequencies that older versions saved, and experts of width zero, say nothing.
    found.retain(|name, tensor| !name.ends_with("rotary_emb.inv_freq") && !tensor.is_empty());
    problems.extend(
        found.iter().map(|(name, t)| format!("{name}: expected none, got {:?}", t.shape())),
    );
    match problems.is_empty() {
        true => Ok(tensors),
        false => Err(FolderError::Tensors { path: dir.to_path_buf(), problems }),
    }
}
