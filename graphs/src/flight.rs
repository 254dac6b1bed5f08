//! One microbatch on its way through one chunk: the tensors alive between `F` and `W`.
//!
//! Written once, for tensors and for symbols of them. The runtime runs flights of tensors; the
//! memory scan runs the same flights with symbols and so knows what is alive when. Both count
//! with the same [`Ledger`]: every buffer once, from the moment it is made until nobody of this
//! flight holds it, without what an operator allocates for itself during a call.

use std::collections::BTreeMap;

use ops::{Kind, Op, Tensor};

use crate::{
    edge::Class,
    model::{ModelGraph, NodeId, Port, Source},
    plan::{Plan, Side, Visit},
};

mod ledger;

pub use crate::flight::ledger::{Amount, Ledger, Live};

/// A tensor, or what stands for it on paper.
pub trait Held: Clone {
    /// Where it lies and how far it reaches; tensors that agree in both share their memory.
    fn place(&self) -> (usize, usize);

    /// Bytes of its elements, those of a slice being its own and not the whole's.
    fn amount(&self) -> Amount;

    /// A tensor of no element, in the place of the gradient of whole numbers.
    fn empty() -> Self;

    /// The sum with another of the same shape, a new tensor.
    fn plus(&self, other: &Self) -> Self;
}

impl Held for Tensor {
    fn place(&self) -> (usize, usize) {
        (self.bytes().as_ptr() as usize, self.bytes().len())
    }

    fn amount(&self) -> Amount {
        Amount { fixed: self.bytes().len() as u64, per_row: 0 }
    }

    fn empty() -> Self {
        Tensor::from_i32(&[0], Vec::new())
    }

    fn plus(&self, other: &Self) -> Self {
        Tensor::plus(self, other)
    }
}

/// A node as one actor runs it: the operator may know fewer experts than the model's.
#[derive(Clone, Debug)]
pub struct Task {
    /// Node of the model.
    pub node: NodeId,
    /// Its operator on this actor.
    pub op: Op,
}

/// The nodes that an actor of a side computes in a segment, or visit, of a chunk.
pub fn tasks(
    plan: &Plan,
    graph: &ModelGraph,
    side: Side,
    chunk: usize,
    segment: usize,
) -> Vec<Task> {
    let chunk = &plan.chunks[chunk];
    match side {
        Side::Stage => {
            let task = |&node: &NodeId| Task { node, op: graph.node(node).op.clone() };
            chunk.segments[segment].iter().map(task).collect()
        }
        Side::Experts => {
            let task = |(node, op): &(NodeId, Op)| Task { node: *node, op: op.clone() };
            chunk.visits[segment].nodes.iter().map(task).collect()
        }
    }
}

/// The output that crosses from each chunk to the next, all but the last.
pub fn boundaries(plan: &Plan, graph: &ModelGraph) -> Vec<Port> {
    plan.chunks.iter().flat_map(|chunk| graph.crossing(chunk.nodes.end)).collect()
}

/// The inputs of a visit that have a gradient: rows, not counts.
pub fn graded_inputs(graph: &ModelGraph, visit: &Visit) -> Vec<Port> {
    let graded = |&&(node, port): &&Port| graph.node(node).outputs[port].kind != Kind::Index;
    visit.inputs.iter().filter(graded).copied().collect()
}

/// Whether a segment of a stage reads tokens or targets.
pub fn reads_unit(graph: &ModelGraph, tasks: &[Task]) -> bool {
    let unit = |source: &Source| matches!(source, Source::Tokens | Source::Targets);
    tasks.iter().any(|task| graph.node(task.node).inputs.iter().any(unit))
}

/// What a forward call gives.
#[derive(Debug)]
pub struct Made<T> {
    /// The outputs.
    pub outputs: Vec<T>,
    /// What `I` needs.
    pub saved_input: Vec<T>,
    /// What `W` needs.
    pub saved_weight: Vec<T>,
}

/// Computes the gradients of the inputs of a node, from what it saved and those of its outputs.
pub type BackwardInput<'a, T> = dyn FnMut(&Task, &[T], &[T]) -> Vec<Option<T>> + 'a;

/// Tensors of one microbatch in one chunk (on the experts' side: in one visit, from one source).
///
/// Written and read only by the actor that holds it; dropped by it when it is empty.
#[derive(Clone, Debug)]
pub struct Flight<T> {
    /// Tokens and the tokens that follow them; only where a node reads them.
    unit: Option<(T, T)>,
    /// Outputs of nodes and arrivals from other actors; cleared when `F` of the chunk is done.
    values: BTreeMap<Port, T>,
    /// Gradients of outputs, summed over the consumers run so far.
    gradients: BTreeMap<Port, T>,
    /// What `I` of a node needs.
    saved_input: BTreeMap<NodeId, Vec<T>>,
    /// What `W` of a node needs.
    saved_weight: BTreeMap<NodeId, Vec<T>>,
    /// Gradients of the outputs of nodes with weights, put off until `W`.
    deferred: BTreeMap<NodeId, Vec<T>>,
    ledger: Ledger,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Flight {
            unit: None,
            values: BTreeMap::new(),
            gradients: BTreeMap::new(),
            saved_input: BTreeMap::new(),
            saved_weight: BTreeMap::new(),
            deferred: BTreeMap::new(),
            ledger: Ledger::default(),
        }
    }
}

impl<T: Held> Flight<T> {
    /// What is alive.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Brings tokens and targets, which the loader's step holds and are not counted here.
    pub fn set_unit(&mut self, unit: (T, T)) {
        self.ledger.hold(&unit.0, None);
        self.ledger.hold(&unit.1, None);
        self.drop_unit();
        self.unit = Some(unit);
    }

    fn drop_unit(&mut self) {
        if let Some((tokens, targets)) = self.unit.take() {
            self.ledger.release(&tokens);
            self.ledger.release(&targets);
        }
    }

    /// Puts a value there, made here or arrived from elsewhere.
    pub fn put(&mut self, graph: &ModelGraph, port: Port, value: T) {
        self.ledger.hold(&value, Some(graph.class(port)));
        if let Some(before) = self.values.insert(port, value) {
            self.ledger.release(&before);
        }
    }

    /// The value of an output.
    ///
    /// # Panics
    ///
    /// If it has not been made, which no checked plan allows.
    pub fn value(&self, port: Port) -> &T {
        self.values.get(&port).expect("the plan runs a node after everything it reads")
    }

    /// Drops what only the forward pass needed.
    pub fn clear_values(&mut self) {
        let values = std::mem::take(&mut self.values);
        values.values().for_each(|value| self.ledger.release(value));
        self.drop_unit();
    }

    /// Takes the gradient of an output out of the flight, to send it.
    ///
    /// # Panics
    ///
    /// If there is none, which no checked plan allows.
    pub fn take_gradient(&mut self, port: Port) -> T {
        let gradient = self.remove_gradient(port);
        self.ledger.release(&gradient);
        gradient
    }

    /// Takes a gradient that is still counted.
    fn remove_gradient(&mut self, port: Port) -> T {
        self.gradients.remove(&port).expect("the plan uses a gradient after all its parts")
    }

    /// The gradient of an output, complete once all its consumers have run.
    ///
    /// # Panics
    ///
    /// If there is none, which no checked plan allows.
    pub fn gradient(&self, port: Port) -> &T {
        self.gradients.get(&port).expect("the plan sends a gradient after all its parts")
    }

    /// Adds a part of the gradient of an output; parts come in a fixed order, last consumer first.
    pub fn add_gradient(&mut self, port: Port, part: T) {
        self.ledger.hold(&part, Some(Class::ActivationGradients));
        let sum = match self.gradients.remove(&port) {
            None => part,
            Some(before) => {
                let sum = before.plus(&part);
                self.ledger.hold(&sum, Some(Class::ActivationGradients));
                self.ledger.release(&before);
                self.ledger.release(&part);
                sum
            }
        };
        self.gradients.insert(port, sum);
    }

    /// Whether nothing is left to do with this microbatch here.
    pub fn is_empty(&self) -> bool {
        let nodes = [&self.saved_input, &self.saved_weight, &self.deferred];
        self.values.is_empty()
            && self.gradients.is_empty()
            && nodes.iter().all(|map| map.is_empty())
    }

    /// `F` of some nodes in order; `run` computes one from its inputs.
    pub fn forward(
        &mut self,
        graph: &ModelGraph,
        tasks: &[Task],
        run: &mut dyn FnMut(&Task, &[T]) -> Made<T>,
    ) {
        for task in tasks {
            let sources = &graph.node(task.node).inputs;
            let inputs: Vec<T> = sources.iter().map(|source| self.input(source)).collect();
            let made = run(task, &inputs);
            for (port, output) in made.outputs.into_iter().enumerate() {
                self.put(graph, (task.node, port), output);
            }
            let kept = Some(Class::of_kept(&task.op));
            let saved = made.saved_input.iter().chain(&made.saved_weight);
            saved.for_each(|tensor| self.ledger.hold(tensor, kept));
            self.saved_input.insert(task.node, made.saved_input);
            self.saved_weight.insert(task.node, made.saved_weight);
        }
    }

    fn input(&self, source: &Source) -> T {
        let unit = || self.unit.as_ref().expect("the loader feeds every stage that reads tokens");
        match source {
            Source::Tokens => unit().0.clone(),
            Source::Targets => unit().1.clone(),
            Source::Node { node, port } => self.value((*node, *port)).clone(),
        }
    }

    /// `I` of some nodes, last node first; keeps output gradients for `W` where there are weights.
    ///
    /// # Panics
    ///
    /// If `F` has not run, which no checked plan allows.
    pub fn backward_input(
        &mut self,
        graph: &ModelGraph,
        tasks: &[Task],
        run: &mut BackwardInput<'_, T>,
    ) {
        for task in tasks.iter().rev() {
            let node = graph.node(task.node);
            let dy = self.output_gradients(graph, task.node);
            let saved = self.saved_input.remove(&task.node).expect("F runs before I");
            if node.inputs.iter().any(|source| matches!(source, Source::Node { .. })) {
                self.spread(&node.inputs, run(task, &saved, &dy));
            }
            self.release(&saved);
            if node.parameters.is_empty() {
                self.release(&dy);
                let unused = self.saved_weight.remove(&task.node).unwrap_or_default();
                self.release(&unused);
            } else {
                self.deferred.insert(task.node, dy);
            }
        }
    }

    fn release(&mut self, tensors: &[T]) {
        tensors.iter().for_each(|tensor| self.ledger.release(tensor));
    }

    /// Adds the gradients of a node's inputs, which are all there at once, to those of its sources.
    fn spread(&mut self, sources: &[Source], dx: Vec<Option<T>>) {
        let parts = sources.iter().zip(dx).filter_map(|(source, part)| match (source, part) {
            (Source::Node { node, port }, Some(part)) => Some(((*node, *port), part)),
            _ => None,
        });
        let parts: Vec<(Port, T)> = parts.collect();
        let class = Some(Class::ActivationGradients);
        parts.iter().for_each(|(_, part)| self.ledger.hold(part, class));
        for (port, part) in parts {
            self.ledger.release(&part);
            self.add_gradient(port, part);
        }
    }

    /// Gradients of all outputs, still counted; whole-number outputs have an empty one.
    fn output_gradients(&mut self, graph: &ModelGraph, node: NodeId) -> Vec<T> {
        let outputs = graph.node(node).outputs.iter().enumerate();
        outputs
            .map(|(port, spec)| match spec.kind {
                Kind::Index => T::empty(),
                Kind::Activation | Kind::Exact => self.remove_gradient((node, port)),
            })
            .collect()
    }

    /// `W` of one node: `run` takes what it saved and the gradients of its outputs.
    ///
    /// # Panics
    ///
    /// If `F` or `I` has not run, which no checked plan allows.
    pub fn backward_weight(&mut self, node: NodeId, run: impl FnOnce(&[T], &[T])) {
        let saved = self.saved_weight.remove(&node).expect("F runs before W");
        let dy = self.deferred.remove(&node).expect("I runs before W");
        run(&saved, &dy);
        self.release(&saved);
        self.release(&dy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_gradient_are_added() {
        let mut flight = Flight::default();
        flight.add_gradient((3, 0), Tensor::from_f32(&[2], vec![1., 2.]));
        flight.add_gradient((3, 0), Tensor::from_f32(&[2], vec![10., 20.]));
        let all = Class::ActivationGradients;
        assert_eq!(flight.ledger().live().of(all), Amount { fixed: 8, per_row: 0 });
        assert_eq!(flight.ledger().highs()[0].of(all), Amount { fixed: 24, per_row: 0 });
        assert_eq!(flight.take_gradient((3, 0)).f32().as_ref(), [11., 22.]);
        assert_eq!(flight.ledger().live(), &Live::default());
    }
}
