//! The trained network, as a job names it.

use std::path::PathBuf;

use graphs::{Decoder, ModelError, ModelGraph, source::GraphSource};
use serde::Deserialize;

/// The trained network; `Preset(..)` and `File(..)` have become one of these when a job is loaded.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Model {
    /// A DeepSeek-V3 or Kimi-K2 decoder in a few numbers.
    Decoder(Decoder),
    /// Any graph of operators.
    Graph(GraphSource),
    /// The model of a folder with `config.json`.
    HuggingFace(PathBuf),
}

impl Model {
    /// The model as a checked graph; nothing for a folder, which has to be read first.
    ///
    /// # Errors
    ///
    /// All mistakes of the model.
    pub fn graph(&self) -> Option<Result<ModelGraph, Vec<ModelError>>> {
        match self {
            Model::Decoder(decoder) => {
                Some(decoder.check().and_then(|()| ModelGraph::new(&decoder.expand())))
            }
            Model::Graph(source) => Some(ModelGraph::new(source)),
            Model::HuggingFace(_) => None,
        }
    }

    /// The graph as text would write it; nothing for a folder.
    pub fn source(&self) -> Option<GraphSource> {
        match self {
            Model::Decoder(decoder) => Some(decoder.expand()),
            Model::Graph(source) => Some(source.clone()),
            Model::HuggingFace(_) => None,
        }
    }
}
