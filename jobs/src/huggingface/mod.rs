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

pub use self::{
    error::FolderError,
    read::{Imported, read},
    write::write,
};

/// Names and shapes of the tensors that transformers expects, in the order of the model.
fn expected(decoder: &graphs::decoder::Decoder) -> Vec<(String, Vec<usize>)> {
    let graph = graphs::model::ModelGraph::new(&decoder.expand());
    // A decoder whose fields are checked always expands to a sound graph.
    let parameters = graph.map(|graph| graph.parameters().to_vec()).unwrap_or_default();
    parameters.into_iter().map(|p| (p.name, p.spec.shape)).collect()
}

#[cfg(test)]
mod tests;
