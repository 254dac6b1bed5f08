//! Folders that transformers, vLLM and SGLang load: a model of the DeepSeek-V3 and Kimi-K2 family.
//!
//! ```text
//! config.json  generation_config.json             shape of the model, ends of texts
//! tokenizer.json  tokenizer_config.json           the tokenizer
//! model-00001-of-00002.safetensors ..             tensors under transformers' names
//! model.safetensors.index.json                    which tensor stands where
//! ```
//!
//! Parameters have transformers' names from the start, one tensor for each expert, so nothing is
//! renamed here.

mod config;
mod error;
mod read;
mod write;

use std::path::Path;

use graphs::{decoder::Decoder, model::ModelGraph};

pub use self::{
    error::FolderError,
    read::{Imported, read, shape},
    write::write,
};

/// Names and shapes of the tensors that transformers expects, in the order of the model.
fn expected(dir: &Path, decoder: &Decoder) -> Result<Vec<(String, Vec<usize>)>, FolderError> {
    let graph = ModelGraph::new(&decoder.expand()).map_err(|errors| {
        let problems = errors.iter().map(ToString::to_string).collect();
        FolderError::Config { path: dir.join("config.json"), problems }
    })?;
    Ok(graph.parameters().iter().map(|p| (p.name.clone(), p.spec.shape.clone())).collect())
}

#[cfg(test)]
mod tests;
