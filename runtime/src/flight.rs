//! One microbatch on its way through one chunk: the tensors alive between `F` and `W`.

use std::collections::BTreeMap;

use graphs::model::{ModelGraph, NodeId, Source};
use ops::{Context, Kind, Observed, Op, Tensor};

/// An output of a node: node and port.
pub type Port = (NodeId, usize);

/// A node as one actor runs it: the operator may know fewer experts than the model's.
#[derive(Clone, Debug)]
pub struct Task {
    /// Node of the model.
    pub node: NodeId,
    /// Its operator on this actor.
    pub op: Op,
}

/// Tensors of one microbatch in one chunk (on the experts' side: in one visit, from one source).
///
/// Written and read only by the actor that holds it; dropped by it after the last `W`.
#[derive(Debug, Default)]
pub struct Flight {
    /// Tokens and the tokens that follow them; only where a node reads them.
    pub unit: Option<(Tensor, Tensor)>,
    /// Outputs of nodes and arrivals from other actors; cleared when `F` of the chunk is done.
    values: BTreeMap<Port, Tensor>,
    /// Gradients of outputs, summed over the consumers run so far.
    gradients: BTreeMap<Port, Tensor>,
    /// What `I` of a node needs.
    saved_input: BTreeMap<NodeId, Vec<Tensor>>,
    /// What `W` of a node needs.
    saved_weight: BTreeMap<NodeId, Vec<Tensor>>,
    /// Gradients of the outputs of nodes with weights, put off until `W`.
    deferred: BTreeMap<NodeId, Vec<Tensor>>,
}

impl Flight {
    /// Puts a value there, made here or arrived from elsewhere.
    pub fn put(&mut self, port: Port, value: Tensor) {
        self.values.insert(port, value);
    }

    /// The value of an output.
    pub fn value(&self, port: Port) -> &Tensor {
        self.values.get(&port).expect("the plan runs a node after everything it reads")
    }

    /// Drops what only the forward pass needed.
    pub fn clear_values(&mut self) {
        self.values.clear();
        self.unit = None;
    }

    /// Takes the gradient of an output out of the flight, to send it.
    pub fn take_gradient(&mut self, port: Port) -> Tensor {
        self.gradients.remove(&port).expect("the plan sends a gradient after all its parts")
    }

    /// The gradient of an output, complete once all its consumers have run.
    pub fn gradient(&self, port: Port) -> &Tensor {
        self.gradients.get(&port).expect("the plan sends a gradient after all its parts")
    }

    /// Whether nothing is left to do with this microbatch here.
    pub fn is_empty(&self) -> bool {
        let nodes = [&self.saved_input, &self.saved_weight, &self.deferred];
        self.values.is_empty()
            && self.gradients.is_empty()
            && nodes.iter().all(|map| map.is_empty())
    }

    /// Adds a part of the gradient of an output; parts come in a fixed order, last consumer first.
    pub fn add_gradient(&mut self, port: Port, part: Tensor) {
        let sum = match self.gradients.remove(&port) {
            None => part,
            Some(before) => sum(&before, &part),
        };
        self.gradients.insert(port, sum);
    }

    /// `F` of some nodes in order; returns what they observed.
    pub fn forward(
        &mut self,
        graph: &ModelGraph,
        at: &Context,
        tasks: &[Task],
        weights: &dyn Fn(NodeId) -> Vec<Tensor>,
    ) -> Vec<(NodeId, Observed)> {
        let mut observed = Vec::new();
        for task in tasks {
            let inputs: Vec<Tensor> =
                graph.node(task.node).inputs.iter().map(|source| self.input(source)).collect();
            let done = task.op.operator().forward(at, &weights(task.node), &inputs);
            for (port, output) in done.outputs.into_iter().enumerate() {
                self.put((task.node, port), output);
            }
            self.saved_input.insert(task.node, done.saved.input);
            self.saved_weight.insert(task.node, done.saved.weight);
            observed.extend(done.observed.map(|seen| (task.node, seen)));
        }
        observed
    }

    fn input(&self, source: &Source) -> Tensor {
        let unit = || self.unit.as_ref().expect("the loader feeds every stage that reads tokens");
        match source {
            Source::Tokens => unit().0.clone(),
            Source::Targets => unit().1.clone(),
            Source::Node { node, port } => self.value((*node, *port)).clone(),
        }
    }

    /// `I` of some nodes, last node first; keeps output gradients for `W` where there are weights.
    pub fn backward_input(
        &mut self,
        graph: &ModelGraph,
        at: &Context,
        tasks: &[Task],
        weights: &dyn Fn(NodeId) -> Vec<Tensor>,
    ) {
        for task in tasks.iter().rev() {
            let node = graph.node(task.node);
            let dy = self.output_gradients(graph, task.node);
            let saved = self.saved_input.remove(&task.node).expect("F runs before I");
            if node.inputs.iter().any(|source| matches!(source, Source::Node { .. })) {
                let op = task.op.operator();
                let dx = op.backward_input(at, &weights(task.node), &saved, &dy);
                for (source, part) in node.inputs.iter().zip(dx) {
                    if let (Source::Node { node, port }, Some(part)) = (source, part) {
                        self.add_gradient((*node, *port), part);
                    }
                }
            }
            if node.parameters.is_empty() {
                self.saved_weight.remove(&task.node);
            } else {
                self.deferred.insert(task.node, dy);
            }
        }
    }

    /// Gradients of all outputs; whole-number outputs have an empty one.
    fn output_gradients(&mut self, graph: &ModelGraph, node: NodeId) -> Vec<Tensor> {
        let outputs = graph.node(node).outputs.iter().enumerate();
        outputs
            .map(|(port, spec)| match spec.kind {
                Kind::Index => Tensor::from_i32(&[0], Vec::new()),
                Kind::Activation | Kind::Exact => self.take_gradient((node, port)),
            })
            .collect()
    }

    /// `W` of one node: adds its weight gradients to `dw`.
    pub fn backward_weight(
        &mut self,
        at: &Context,
        task: &Task,
        weights: &[Tensor],
        dw: &mut [Vec<f32>],
    ) {
        let saved = self.saved_weight.remove(&task.node).expect("F runs before W");
        let dy = self.deferred.remove(&task.node).expect("I runs before W");
        task.op.operator().backward_weight(at, weights, &saved, &dy, dw);
    }

    /// Bytes of everything alive, counting shared memory once for each tensor that shares it.
    pub fn bytes(&self) -> usize {
        let of = |map: &BTreeMap<NodeId, Vec<Tensor>>| -> usize {
            map.values().flatten().map(|t| t.bytes().len()).sum()
        };
        let ports = self.values.values().chain(self.gradients.values());
        let ports: usize = ports.map(|t| t.bytes().len()).sum();
        ports + of(&self.saved_input) + of(&self.saved_weight) + of(&self.deferred)
    }
}

/// Adds two tensors of one shape in f32 and rounds to their format.
fn sum(a: &Tensor, b: &Tensor) -> Tensor {
    let values = a.f32().iter().zip(b.f32().iter()).map(|(a, b)| a + b).collect();
    Tensor::rounded(a.shape(), values, a.dtype())
}

/// Joins pieces along the first dim; a single piece is passed on as it is.
pub fn concatenate(pieces: &[Tensor]) -> Tensor {
    if let [only] = pieces {
        return only.clone();
    }
    let mut shape = pieces[0].shape().to_vec();
    shape[0] = pieces.iter().map(|piece| piece.shape()[0]).sum();
    let size = pieces.iter().map(|piece| piece.bytes().len()).sum();
    let mut bytes = Vec::with_capacity(size);
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.bytes()));
    Tensor::from_bytes(&shape, pieces[0].dtype(), bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_in_order_and_may_be_empty() {
        let a = Tensor::from_f32(&[1, 2], vec![1., 2.]);
        let none = Tensor::from_f32(&[0, 2], vec![]);
        let b = Tensor::from_f32(&[2, 2], vec![3., 4., 5., 6.]);
        let joined = concatenate(&[a, none, b]);
        assert_eq!(joined.shape(), [3, 2]);
        assert_eq!(joined.f32().as_ref(), [1., 2., 3., 4., 5., 6.]);
    }

    #[test]
    fn parts_of_a_gradient_are_added() {
        let mut flight = Flight::default();
        flight.add_gradient((3, 0), Tensor::from_f32(&[2], vec![1., 2.]));
        flight.add_gradient((3, 0), Tensor::from_f32(&[2], vec![10., 20.]));
        assert_eq!(flight.take_gradient((3, 0)).f32().as_ref(), [11., 22.]);
    }
}
