//! `export` and `init-model`: a model as a folder that other programs load.

use std::{collections::BTreeMap, path::Path};

use graphs::Decoder;
use ops::{DType, Tensor, optim::MuonClip, optim::Optimizer};
use runtime::init::Initial;

use crate::{data::Tokenizer, exit::Failure, folder, huggingface, memory, prepare};

/// Writes the model of a checkpoint for other programs.
///
/// # Errors
///
/// What is wrong with either folder, or a model that is not of the family.
pub fn export(from: &Path, to: &Path, dtype: DType) -> Result<u8, Failure> {
    let trained = folder::open(from)?;
    let decoder = trained.decoder.ok_or_else(|| {
        Failure::usage("only models of the DeepSeek-V3 and Kimi-K2 family can be exported".into())
    })?;
    let tensors = weights(&trained.tensors);
    let context = trained.context;
    huggingface::write(to, &decoder, context, &tensors, &trained.tokenizer, dtype)
        .map_err(prepare::PrepareError::from)?;
    eprintln!("wrote {}", to.display());
    Ok(0)
}

/// The weights among the tensors of a checkpoint.
pub fn weights(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let weights = tensors.iter().filter(|(name, _)| !name.starts_with("optimizer."));
    weights.map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

/// Writes a model with the weights that a fresh run with this seed starts from.
///
/// # Errors
///
/// What is wrong with the numbers of the model or the folder.
pub fn init_model(decoder: &Decoder, seed: u64, to: &Path, dtype: DType) -> Result<u8, Failure> {
    let graph = prepare::of_decoder(decoder)?;
    // Values, their bytes in the file's format, and the file's copy of them in the page cache.
    memory::fits(2 * memory::of_values(&graph), "writing this model")?;
    let optimizer = Optimizer::MuonClip(MuonClip::default());
    let none = BTreeMap::new();
    let initial = Initial::new(&graph, &optimizer, seed, &none)?;
    let tensor = |(index, about): (usize, &graphs::model::Parameter)| {
        (about.name.clone(), Tensor::from_f32(&about.spec.shape, initial.master(index)))
    };
    let tensors = graph.parameters().iter().enumerate().map(tensor).collect();
    let context = 4096;
    let tokenizer = Tokenizer::bytes();
    huggingface::write(to, decoder, context, &tensors, &tokenizer, dtype)
        .map_err(prepare::PrepareError::from)?;
    eprintln!("wrote {}", to.display());
    Ok(0)
}
