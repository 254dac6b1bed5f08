//! One microbatch on its way through one chunk: the tensors alive between `F` and `W`.
//!
//! Written once, for tensors and for symbols of them. The runtime runs flights of tensors; the
//! memory scan runs the same flights with symbols and so knows what is alive when. Both count
//! with the same [`Ledger`]: every buffer once, from the moment it is made until nobody of this
//! flight holds it, without what an operator allocates for itself during a call.
//!
//! A tensor is dropped after its last reader forward, unless the backward pass reads it too; then
//! the plan's policies say how it is kept (see [`Keeping`]).

use std::collections::BTreeMap;

use ops::Kind;

use crate::{
    edge::Class,
    model::{ModelGraph, NodeId, Port, Source},
};

mod held;
mod host;
mod keeping;
mod ledger;
mod restore;
mod slot;
mod task;

pub use crate::flight::{
    held::{Buffer, Held},
    host::Batch,
    keeping::{Form, Half, Item, Keeping, Kept, Restoring, keepings},
    ledger::{Amount, Ledger, Live},
    slot::{Lump, Slot},
    task::{Task, boundaries, graded_inputs, reads_unit, tasks},
};

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

/// Computes a node forward from its inputs.
pub type RunForward<'a, T> = dyn FnMut(&Task, &[T]) -> Made<T> + 'a;

/// Tensors of one microbatch in one chunk (on the experts' side: in one visit, from one source).
///
/// Written and read only by the actor that holds it; dropped by it when it is empty.
#[derive(Clone, Debug)]
pub struct Flight<T: Held> {
    /// Tokens and the tokens that follow them, while a segment that reads them runs forward.
    unit: Option<(T, T)>,
    /// Outputs of nodes and arrivals from other actors, with the readers forward still to come.
    values: BTreeMap<Port, (T, usize)>,
    /// What the backward pass reads; what is to be computed again is not there meanwhile.
    kept: BTreeMap<Item, Slot<T>>,
    /// Gradients of outputs, summed over the consumers run so far.
    gradients: BTreeMap<Port, T>,
    /// Gradients of the outputs of nodes with weights, put off until `W`.
    deferred: BTreeMap<NodeId, Vec<T>>,
    ledger: Ledger,
    /// Bytes that it takes of the host's pool.
    host: Live,
}

impl<T: Held> Default for Flight<T> {
    fn default() -> Self {
        Flight {
            unit: None,
            values: BTreeMap::new(),
            kept: BTreeMap::new(),
            gradients: BTreeMap::new(),
            deferred: BTreeMap::new(),
            ledger: Ledger::default(),
            host: Live::default(),
        }
    }
}

impl<T: Held> Flight<T> {
    /// What is alive.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// What is on the host.
    pub fn host(&self) -> &Live {
        &self.host
    }

    /// Brings tokens and targets for the next forward pass of some nodes; the loader's step holds
    /// them, so they are not counted here.
    pub fn set_unit(&mut self, unit: (T, T)) {
        self.unit = Some(unit);
    }

    /// Puts a value there, made here or arrived from elsewhere.
    pub fn put(&mut self, graph: &ModelGraph, keeping: &Keeping, port: Port, value: T) {
        let (item, reads) = (Item::Edge(port), keeping.reads(port));
        self.ledger.hold(&value, Some(graph.class(port)));
        if keeping.item(item).is_some_and(|kept| kept.form != Form::Absent) {
            self.keep(graph, keeping, item, value.clone());
        }
        match reads {
            0 => self.part_with(graph, keeping, port, &value),
            _ => drop(self.values.insert(port, (value, reads))),
        }
    }

    /// Keeps an item that the backward pass reads, unless it is there.
    fn keep(&mut self, graph: &ModelGraph, keeping: &Keeping, item: Item, value: T) {
        let Some(Kept { uses, .. }) = keeping.item(item) else { return };
        if !self.kept.contains_key(&item) {
            self.ledger.hold(&value, class(graph, keeping, item));
            self.kept.insert(item, Slot { lump: Lump::Plain(value), uses, is_away: false });
        }
    }

    /// The value of an output.
    ///
    /// # Panics
    ///
    /// If it has not been made, which no checked plan allows.
    pub fn value(&self, port: Port) -> &T {
        &self.values.get(&port).expect("the plan runs a node after everything it reads").0
    }

    /// Notes that one reader of an output is done with it; the last one lets it go.
    pub fn read(&mut self, graph: &ModelGraph, keeping: &Keeping, port: Port) {
        let Some((_, left)) = self.values.get_mut(&port) else { return };
        *left -= 1;
        if *left == 0
            && let Some((value, _)) = self.values.remove(&port)
        {
            self.part_with(graph, keeping, port, &value);
        }
    }

    /// After the last reader forward: what is kept goes into the form that it is kept in.
    fn part_with(&mut self, graph: &ModelGraph, keeping: &Keeping, port: Port, value: &T) {
        let form = keeping.item(Item::Edge(port)).map(|kept| kept.form);
        if let (Some(Form::Fp8(width)), Some(slot)) = (form, self.kept.get_mut(&Item::Edge(port))) {
            let stored = value.store(width);
            self.ledger.hold(&stored, Some(graph.class(port)));
            slot.lump = Lump::Fp8(stored);
            self.ledger.release(value);
        }
        self.ledger.release(value);
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
        self.values.is_empty()
            && self.gradients.is_empty()
            && self.kept.is_empty()
            && self.deferred.is_empty()
    }

    /// `F` of some nodes in order; `run` computes one from its inputs.
    pub fn forward(
        &mut self,
        graph: &ModelGraph,
        keeping: &Keeping,
        tasks: &[Task],
        run: &mut RunForward<'_, T>,
    ) {
        for task in tasks {
            let sources = &graph.node(task.node).inputs;
            let inputs: Vec<T> = sources.iter().map(|source| self.input(source)).collect();
            let made = run(task, &inputs);
            for (port, output) in made.outputs.iter().enumerate() {
                self.put(graph, keeping, (task.node, port), output.clone());
            }
            for (half, saved) in
                [(Half::Input, &made.saved_input), (Half::Weight, &made.saved_weight)]
            {
                for (item, tensor) in keeping.half(task.node, half).iter().zip(saved) {
                    if !matches!(item, Item::Edge(_)) {
                        self.keep(graph, keeping, *item, tensor.clone());
                    }
                }
            }
            for source in sources {
                if let Source::Node { node, port } = *source {
                    self.read(graph, keeping, (node, port));
                }
            }
        }
        self.unit = None;
    }

    fn input(&self, source: &Source) -> T {
        let unit = || self.unit.as_ref().expect("the loader feeds every stage that reads tokens");
        match source {
            Source::Tokens => unit().0.clone(),
            Source::Targets => unit().1.clone(),
            Source::Node { node, port } => self.value((*node, *port)).clone(),
        }
    }

    /// An item as it was made.
    fn here(&self, item: Item) -> T {
        match self.kept.get(&item) {
            Some(Slot { lump: Lump::Plain(value), is_away: false, .. }) => value.clone(),
            _ => panic!("the plan restores what a backward pass reads, after its forward pass"),
        }
    }

    /// Counts one reader of each item less; the last one lets it go.
    fn use_up(&mut self, items: &[Item]) {
        for item in items {
            let Some(slot) = self.kept.get_mut(item) else { continue };
            slot.uses -= 1;
            if slot.uses == 0
                && let Some(Slot { lump, .. }) = self.kept.remove(item)
            {
                lump.release(&mut self.ledger);
            }
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
        keeping: &Keeping,
        tasks: &[Task],
        run: &mut BackwardInput<'_, T>,
    ) {
        for task in tasks.iter().rev() {
            let node = graph.node(task.node);
            let dy = self.output_gradients(graph, task.node);
            let items = keeping.half(task.node, Half::Input);
            if node.inputs.iter().any(|source| matches!(source, Source::Node { .. })) {
                let saved: Vec<T> = items.iter().map(|item| self.here(*item)).collect();
                self.spread(&node.inputs, run(task, &saved, &dy));
            }
            self.use_up(items);
            if node.parameters.is_empty() {
                dy.iter().for_each(|dy| self.ledger.release(dy));
            } else {
                self.deferred.insert(task.node, dy);
            }
        }
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
    pub fn backward_weight(
        &mut self,
        keeping: &Keeping,
        node: NodeId,
        run: impl FnOnce(&[T], &[T]),
    ) {
        let items = keeping.half(node, Half::Weight);
        let saved: Vec<T> = items.iter().map(|item| self.here(*item)).collect();
        let dy = self.deferred.remove(&node).expect("I runs before W");
        run(&saved, &dy);
        self.use_up(items);
        dy.iter().for_each(|dy| self.ledger.release(dy));
    }
}

/// What an item is counted by; tokens are counted elsewhere.
fn class(graph: &ModelGraph, keeping: &Keeping, item: Item) -> Option<Class> {
    match item {
        Item::Tokens | Item::Targets => None,
        Item::Edge(port) => Some(graph.class(port)),
        Item::Beside(node, _) => Some(Class::of_kept(&keeping.task(node).op)),
    }
}

#[cfg(test)]
mod tests {
    use ops::Tensor;

    use super::*;

    #[test]
    fn parts_of_a_gradient_are_added() {
        let mut flight = Flight::<Tensor>::default();
        flight.add_gradient((3, 0), Tensor::from_f32(&[2], vec![1., 2.]));
        flight.add_gradient((3, 0), Tensor::from_f32(&[2], vec![10., 20.]));
        let all = Class::ActivationGradients;
        assert_eq!(flight.ledger().live().of(all), Amount { fixed: 8, per_row: 0 });
        assert_eq!(flight.ledger().highs()[0].of(all), Amount { fixed: 24, per_row: 0 });
        assert_eq!(flight.take_gradient((3, 0)).f32().as_ref(), [11., 22.]);
        assert_eq!(flight.ledger().live(), &Live::default());
    }
}
