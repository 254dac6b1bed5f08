//! A trained model at work in one process: likelihood of a text, and sampling with a latent cache.
//!
//! Sampling keeps, for each attention node and past token, only the normalised latent and the
//! rotated shared key (DeepSeek-V2, arXiv:2405.04434, section 2.1.2); the up-projection of keys
//! and values is absorbed into queries and outputs.

use std::collections::BTreeMap;

use graphs::model::{ModelGraph, NodeId, Source};
use ops::{Context, CrossEntropy, DType, MlaAttention, Op, Tensor};

use crate::error::RunError;

/// A model with its weights.
#[derive(Debug)]
pub struct Inference {
    graph: ModelGraph,
    weights: Vec<Tensor>,
    /// Linear nodes that feed only an attention's keys and values: absorbed when sampling.
    absorbed: BTreeMap<NodeId, NodeId>,
    dtype: DType,
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
        let absorbed = absorbed(&graph);
        Ok(Inference { graph, weights, absorbed, dtype })
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

    /// Begins to sample a text.
    pub fn session(&self) -> Session<'_> {
        Session { model: self, caches: BTreeMap::new(), length: 0 }
    }
}

/// Nodes whose only use is as keys and values of an attention node, with that node.
fn absorbed(graph: &ModelGraph) -> BTreeMap<NodeId, NodeId> {
    let mut absorbed = BTreeMap::new();
    for clip in graph.clips() {
        let producer = graph.parameters()[clip.keys].node;
        let reads = |id: &NodeId| {
            let inputs = graph.node(*id).inputs.iter();
            { inputs }.any(|s| matches!(s, Source::Node { node, .. } if *node == producer))
        };
        if (0..graph.len()).filter(reads).count() == 1 {
            absorbed.insert(producer, clip.attention);
        }
    }
    absorbed
}

/// Latents and keys of the past, for one attention node.
#[derive(Debug, Default)]
struct Cache {
    /// Normalised latents `[T, kv rank]`.
    latents: Vec<f32>,
    /// Rotated shared keys `[T, rope]`.
    keys: Vec<f32>,
}

/// A text being read and sampled.
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a Inference,
    caches: BTreeMap<NodeId, Cache>,
    length: usize,
}

impl Session<'_> {
    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been read yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of the cache.
    pub fn cache_bytes(&self) -> usize {
        let of = |cache: &Cache| 4 * (cache.latents.len() + cache.keys.len());
        self.caches.values().map(of).sum()
    }

    /// Reads more tokens and returns the logits of the token after them, `[v]`.
    ///
    /// # Panics
    ///
    /// If `tokens` is empty or has a token outside the vocabulary.
    pub fn read(&mut self, tokens: &[i32]) -> Vec<f32> {
        let model = self.model;
        let at = Context { sequence: tokens.len(), dtype: model.dtype, loss_scale: 0.0 };
        let input = Tensor::from_i32(&[tokens.len()], tokens.to_vec());
        let mut values = BTreeMap::new();
        for id in 0..model.graph.len() {
            if model.absorbed.contains_key(&id) {
                continue;
            }
            let node = model.graph.node(id);
            let inputs = model.inputs(id, &input, &values);
            match &node.op {
                Op::CrossEntropy(op) => {
                    let last = inputs[0].rows(tokens.len() - 1..tokens.len());
                    self.length += tokens.len();
                    let logits = op.logits(&model.weights[node.parameters.start], &last);
                    return logits.f32().into_owned();
                }
                Op::MlaAttention(op) => {
                    let output = self.attend(id, op, &inputs, &values);
                    values.insert((id, 0), output);
                }
                _ => model.run_node(id, &at, &inputs, &mut values),
            }
        }
        unreachable!("every model graph ends in a loss node")
    }

    fn attend(
        &mut self,
        id: NodeId,
        op: &MlaAttention,
        inputs: &[Tensor],
        values: &BTreeMap<(NodeId, usize), Tensor>,
    ) -> Tensor {
        let graph = &self.model.graph;
        let clip = graph.clips().iter().find(|clip| clip.attention == id);
        let keys = clip.expect("every attention node has a clip").keys;
        let producer = graph.node(graph.parameters()[keys].node);
        let Source::Node { node, port } = producer.inputs[0] else {
            unreachable!("keys are made from a latent")
        };
        let cache = self.caches.entry(id).or_default();
        cache.latents.extend_from_slice(&values[&(node, port)].f32());
        cache.keys.extend(op.rotate_key(&inputs[2], self.length));
        let weight = &self.model.weights[keys];
        op.decode(weight, &inputs[0], &cache.latents, &cache.keys, self.length)
    }
}

/// Draws a token: softmax at a temperature over the smallest set of tokens with mass `top_p`.
///
/// `uniform` is a number in `[0, 1)`. Temperature 0 takes the likeliest token, the lower one of
/// two equal ones.
pub fn sample(logits_v: &[f32], temperature: f32, top_p: f32, uniform: f32) -> i32 {
    let mut order: Vec<usize> = (0..logits_v.len()).collect();
    order.sort_by(|a, b| logits_v[*b].total_cmp(&logits_v[*a]).then(a.cmp(b)));
    if temperature <= 0.0 {
        return order[0] as i32;
    }
    let most = logits_v[order[0]];
    let mass = |token: &usize| f64::from((logits_v[*token] - most) / temperature).exp();
    let total: f64 = order.iter().map(mass).sum();
    let mut kept = 0.0;
    let within = order.iter().position(|token| {
        kept += mass(token) / total;
        f64::from(top_p) <= kept
    });
    let kept_tokens = &order[..within.map_or(order.len(), |last| last + 1)];
    let mut left = f64::from(uniform) * kept_tokens.iter().map(mass).sum::<f64>();
    for token in kept_tokens {
        left -= mass(token);
        if left < 0.0 {
            return *token as i32;
        }
    }
    kept_tokens[kept_tokens.len() - 1] as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_obeys_temperature_and_mass() {
        let logits = [0.0, 2.0, 1.0, 2.0];
        assert_eq!(sample(&logits, 0.0, 1.0, 0.9), 1);
        assert_eq!(sample(&logits, 1.0, 0.5, 0.999), 3);
        assert_eq!(sample(&logits, 1.0, 1.0, 0.999), 0);
        assert_eq!(sample(&logits, 1.0, 1.0, 0.0), 1);
    }
}
