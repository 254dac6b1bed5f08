//! A trained model at work in one process: likelihood of texts, and sampling of them.
//!
//! `steps` is the model made ready to read token by token, `session` reads some texts side by
//! side, `sampling` draws tokens, `writing` goes on with texts on all cores.

mod sampling;
mod session;
mod steps;
mod writing;

use std::{collections::BTreeMap, sync::OnceLock};

use graphs::model::{ModelGraph, NodeId, Source};
use ops::{Context, CrossEntropy, DType, Op, Tensor};

use self::steps::Steps;
pub use self::{
    sampling::sample,
    session::{Reading, Session},
    writing::{Draft, Taste, Writing},
};
use crate::error::RunError;

/// A model with its weights.
#[derive(Debug)]
pub struct Inference {
    graph: ModelGraph,
    weights: Vec<Tensor>,
    dtype: DType,
    /// Made when the first text is begun, and never again: it holds all weights once more.
    steps: OnceLock<Steps>,
}

impl Inference {
    /// Takes the weights of a model by name, rounding them to `dtype` where training would.
    ///
    /// # Errors
    ///
    /// [`RunError::Weights`] naming a tensor that is missing or has another shape.
    pub fn new(
        graph: ModelGraph,
        tensors: &BTreeMap<String, Tensor>,
        dtype: DType,
    ) -> Result<Self, RunError> {
        let mut weights = Vec::new();
        for parameter in graph.parameters() {
            let name = &parameter.name;
            let found = tensors.get(name).filter(|t| t.shape() == parameter.spec.shape);
            let found = found.ok_or_else(|| {
                let shape = &parameter.spec.shape;
                RunError::Weights(format!("no tensor `{name}` of shape {shape:?}"))
            })?;
            let format = if parameter.spec.exact { DType::F32 } else { dtype };
            weights.push(Tensor::rounded(found.shape(), found.f32().into_owned(), format));
        }
        Ok(Inference { graph, weights, dtype, steps: OnceLock::new() })
    }

    /// The model.
    pub fn graph(&self) -> &ModelGraph {
        &self.graph
    }

    /// Negative log-likelihood of each target, nats, given all tokens up to it.
    ///
    /// `tokens` is one sequence; its length must not exceed what the model was trained for.
    pub fn nll(&self, tokens: &[i32], targets: &[i32]) -> Vec<f32> {
        let (op, weight, x_td) = self.run_whole(tokens);
        op.nll(weight, &x_td, &Tensor::from_i32(&[targets.len()], targets.to_vec()))
    }

    /// Logits of every position of one sequence, `[t, v]` in f32.
    pub fn logits(&self, tokens: &[i32]) -> Tensor {
        let (op, weight, x_td) = self.run_whole(tokens);
        op.logits(weight, &x_td)
    }

    /// Runs everything before the head over a whole sequence at once.
    fn run_whole(&self, tokens: &[i32]) -> (&CrossEntropy, &Tensor, Tensor) {
        let at = Context { sequence: tokens.len(), dtype: self.dtype, loss_scale: 0.0 };
        let tokens = Tensor::from_i32(&[tokens.len()], tokens.to_vec());
        let mut values = BTreeMap::new();
        for id in 0..self.graph.len() {
            let node = self.graph.node(id);
            let inputs: Vec<Tensor> = self.inputs(id, &tokens, &values);
            if let Op::CrossEntropy(op) = &node.op {
                return (op, &self.weights[node.parameters.start], inputs[0].clone());
            }
            self.run_node(id, &at, &inputs, &mut values);
        }
        unreachable!("every model graph ends in a loss node")
    }

    fn run_node(
        &self,
        id: NodeId,
        at: &Context,
        inputs: &[Tensor],
        values: &mut BTreeMap<(NodeId, usize), Tensor>,
    ) {
        let node = self.graph.node(id);
        let weights = &self.weights[node.parameters.clone()];
        let outputs = node.op.operator().forward(at, weights, inputs).outputs;
        values.extend(outputs.into_iter().enumerate().map(|(port, value)| ((id, port), value)));
    }

    fn inputs(
        &self,
        id: NodeId,
        tokens: &Tensor,
        values: &BTreeMap<(NodeId, usize), Tensor>,
    ) -> Vec<Tensor> {
        let inputs = self.graph.node(id).inputs.iter();
        let value = |source: &Source| match source {
            Source::Tokens | Source::Targets => tokens.clone(),
            Source::Node { node, port } => values.get(&(*node, *port)).unwrap_or(tokens).clone(),
        };
        inputs.map(value).collect()
    }

    /// Begins so many texts.
    ///
    /// The first call packs the weights.
    pub fn session(&self, texts: usize) -> Session<'_> {
        Session::new(self.steps(), texts)
    }

    fn steps(&self) -> &Steps {
        self.steps.get_or_init(|| Steps::new(&self.graph, &self.weights, self.dtype))
    }
}
