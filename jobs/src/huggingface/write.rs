//! Writes a folder: everything into a hidden one beside it, which then takes its name.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use graphs::decoder::Decoder;
use ops::{DType, Tensor};
use runtime::shards;
use serde_json::{Map, Value, json};

use super::{
    config,
    error::{FolderError, cannot},
    expected,
};
use crate::data::Tokenizer;

/// Bytes of tensors in one file.
const SHARD_BYTES: usize = 4 << 30;

/// The one tensor that always stays F32: transformers keeps it so, and it moves in small steps.
const EXACT: &str = ".e_score_correction_bias";

/// Writes the model as a folder that `AutoModelForCausalLM.from_pretrained` loads.
///
/// `tensors` has the model's parameters by name, in F32 or BF16, and may have others, which are
/// not written; all are written as `dtype`. `context` is the number of tokens of the training
/// sequences. An exported model that is already at `dir` is replaced.
///
/// # Errors
///
/// [`FolderError::Tensors`] if parameters are missing or have other shapes,
/// [`FolderError::Taken`] if `dir` holds something else, and what the disk refuses.
///
/// # Panics
///
/// If `dtype` is [`DType::I32`].
pub fn write(
    dir: &Path,
    decoder: &Decoder,
    context: usize,
    tensors: &BTreeMap<String, Tensor>,
    tokenizer: &Tokenizer,
    dtype: DType,
) -> Result<(), FolderError> {
    let shapes = fitting(dir, decoder, tensors)?;
    let partial = begin(dir)?;
    let config = config::written(decoder, context, tokenizer.end(), dtype);
    let positions = config::positions(decoder, context);
    let tokens = tokenizer.to_json()?;
    put(&partial.join("config.json"), &format!("{config:#}"))?;
    put(&partial.join("generation_config.json"), &format!("{:#}", generation(tokenizer)))?;
    put(&partial.join("tokenizer.json"), &tokens)?;
    let about = format!("{:#}", tokenizer_config(tokenizer, positions));
    put(&partial.join("tokenizer_config.json"), &about)?;
    put_tensors(&partial, &shapes, decoder, tensors, dtype, SHARD_BYTES)?;
    publish(dir, &partial)
}

/// Parameters of the model with their shapes, all of them there.
fn fitting(
    dir: &Path,
    decoder: &Decoder,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<(String, Vec<usize>)>, FolderError> {
    let shapes = expected(dir, decoder)?;
    let problem = |(name, shape): &(String, Vec<usize>)| match tensors.get(name) {
        None => Some(format!("{name}: expected {shape:?}, got none")),
        Some(tensor) if tensor.shape() != shape => {
            Some(format!("{name}: expected {shape:?}, got {:?}", tensor.shape()))
        }
        Some(_) => None,
    };
    let problems: Vec<String> = shapes.iter().filter_map(problem).collect();
    match problems.is_empty() {
        true => Ok(shapes),
        false => Err(FolderError::Tensors { path: dir.to_path_buf(), problems }),
    }
}

fn generation(tokenizer: &Tokenizer) -> Value {
    json!({"bos_token_id": tokenizer.end(), "eos_token_id": tokenizer.end()})
}

fn tokenizer_config(tokenizer: &Tokenizer, positions: usize) -> Value {
    let end = tokenizer.end_text();
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "add_bos_token": false,
        "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": positions,
    })
}

/// Writes the shards and the index; a shard is converted only when its turn comes.
pub(super) fn put_tensors(
    folder: &Path,
    shapes: &[(String, Vec<usize>)],
    decoder: &Decoder,
    tensors: &BTreeMap<String, Tensor>,
    dtype: DType,
    limit: usize,
) -> Result<(), FolderError> {
    let empty = empty_shared_experts(decoder);
    let source = |name: &str| tensors.get(name).or_else(|| empty.get(name));
    let names = shapes.iter().map(|(name, _)| name.as_str()).chain(empty.keys().map(|n| &**n));
    let size = |name| (name, source(name).map_or(0, |t| t.len() * format(name, dtype).size()));
    let groups = shards::cut(names.map(size), limit);
    let mut places = Map::new();
    let mut total = 0;
    for (index, names) in groups.iter().enumerate() {
        let shard = shards::name("model", index, groups.len());
        let convert =
            |&name: &&str| Some((name.to_string(), converted(name, source(name)?, dtype)));
        let group: BTreeMap<String, Tensor> = names.iter().filter_map(convert).collect();
        let path = folder.join(&shard);
        shards::write(&path, group.iter().map(|(name, tensor)| (name.as_str(), tensor)))
            .map_err(|source| FolderError::Shard { path, source })?;
        total += group.values().map(|tensor| tensor.bytes().len()).sum::<usize>();
        places.extend(group.into_keys().map(|name| (name, Value::from(shard.clone()))));
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": places});
    put(&folder.join("model.safetensors.index.json"), &format!("{index:#}"))
}

/// Without shared experts transformers still makes one, of width zero, and misses its tensors.
fn empty_shared_experts(decoder: &Decoder) -> BTreeMap<String, Tensor> {
    if decoder.shared_experts > 0 {
        return BTreeMap::new();
    }
    let empty = |layer: usize| {
        let shapes = [
            ("gate_proj", [0, decoder.hidden]),
            ("up_proj", [0, decoder.hidden]),
            ("down_proj", [decoder.hidden, 0]),
        ];
        shapes.map(|(part, shape)| {
            let name = format!("model.layers.{layer}.mlp.shared_experts.{part}.weight");
            (name, Tensor::from_f32(&shape, Vec::new()))
        })
    };
    (decoder.dense_layers..decoder.layers).flat_map(empty).collect()
}

fn format(name: &str, dtype: DType) -> DType {
    if name.ends_with(EXACT) { DType::F32 } else { dtype }
}

fn converted(name: &str, tensor: &Tensor, dtype: DType) -> Tensor {
    match format(name, dtype) {
        same if same == tensor.dtype() => tensor.clone(),
        other => Tensor::rounded(tensor.shape(), tensor.f32().into_owned(), other),
    }
}

fn put(path: &Path, text: &str) -> Result<(), FolderError> {
    File::create(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(cannot("write", path))
}

/// A hidden, empty folder beside `dir`.
fn begin(dir: &Path) -> Result<PathBuf, FolderError> {
    let taken = dir.exists() && !dir.join("config.json").exists() && !is_empty(dir)?;
    if taken {
        return Err(FolderError::Taken { path: dir.to_path_buf() });
    }
    let partial = beside(dir, "partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(cannot("remove", &partial))?;
    }
    fs::create_dir_all(&partial).map_err(cannot("create", &partial))?;
    Ok(partial)
}

fn is_empty(dir: &Path) -> Result<bool, FolderError> {
    Ok(fs::read_dir(dir).map_err(cannot("read", dir))?.next().is_none())
}

/// Gives the finished folder its name.
fn publish(dir: &Path, partial: &Path) -> Result<(), FolderError> {
    let replaced = beside(dir, "replaced");
    if replaced.exists() {
        fs::remove_dir_all(&replaced).map_err(cannot("remove", &replaced))?;
    }
    if dir.exists() {
        fs::rename(dir, &replaced).map_err(cannot("rename", dir))?;
    }
    fs::rename(partial, dir).map_err(cannot("rename", partial))?;
    if replaced.exists() {
        fs::remove_dir_all(&replaced).map_err(cannot("remove", &replaced))?;
    }
    Ok(())
}

fn beside(dir: &Path, prefix: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!(".{prefix}-{name}"))
}
