//! What each instruction does to the flight of its microbatch: the runtime's rules, on paper.

use std::collections::BTreeMap;

use crate::{
    flight::{Flight, Made, Task, boundaries, graded_inputs, reads_unit, tasks},
    memory::{
        sizes::Sizes,
        symbol::{Maker, Symbol},
    },
    model::{Port, Source},
    plan::{Cargo, Instruction, Side, Visit},
};

/// Something that happens to a flight, whichever microbatch it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Event {
    /// An instruction, with 0 for the microbatch.
    Do(Instruction),
    /// The chunk before, on the same stage, hands its output over.
    Enter,
    /// The chunk behind, on the same stage, hands the gradient of its input back.
    Return,
}

/// The events of one actor.
pub(super) struct Events<'a> {
    pub sizes: &'a Sizes<'a>,
    pub side: Side,
    pub tasks: BTreeMap<(usize, usize), Vec<Task>>,
    boundaries: Vec<Port>,
    maker: Maker,
}

impl<'a> Events<'a> {
    pub fn new(sizes: &'a Sizes<'a>, stage: usize, side: Side) -> Self {
        let (plan, graph) = (sizes.plan, sizes.graph);
        let mut all = BTreeMap::new();
        for (number, chunk) in plan.chunks.iter().enumerate().filter(|(_, c)| c.stage == stage) {
            let segments = match side {
                Side::Stage => chunk.segments.len(),
                Side::Experts => chunk.visits.len(),
            };
            for segment in 0..segments {
                all.insert((number, segment), tasks(plan, graph, side, number, segment));
            }
        }
        let boundaries = boundaries(plan, graph);
        Events { sizes, side, tasks: all, boundaries, maker: Maker::default() }
    }

    /// Applies an event to a flight of a chunk.
    pub fn apply(&self, flight: &mut Flight<Symbol>, chunk: usize, event: Event) {
        match event {
            Event::Enter => self.put(flight, self.boundaries[chunk - 1]),
            Event::Return => self.add_gradient(flight, self.boundaries[chunk]),
            Event::Do(Instruction::Receive { channel, .. }) => {
                self.receive(flight, self.sizes.plan.channels[channel].cargo);
            }
            Event::Do(Instruction::Send { channel, .. }) => {
                self.send(flight, self.sizes.plan.channels[channel].cargo);
            }
            Event::Do(Instruction::Forward { segment, .. }) => {
                self.forward(flight, chunk, segment);
            }
            Event::Do(Instruction::BackwardInput { segment, .. }) => {
                self.backward_input(flight, chunk, segment);
            }
            Event::Do(Instruction::BackwardWeight { segment, .. }) => {
                let tasks = self.tasks[&(chunk, segment)].iter().rev();
                let trained =
                    |task: &&Task| !self.sizes.graph.node(task.node).parameters.is_empty();
                tasks.filter(trained).for_each(|task| flight.backward_weight(task.node, |_, _| ()));
            }
        }
    }

    /// What a cargo brings or takes: ports, and whether gradients of them.
    pub fn ports(&self, cargo: Cargo) -> (Vec<Port>, bool) {
        let visit =
            |chunk: usize, visit: usize| -> &Visit { &self.sizes.plan.chunks[chunk].visits[visit] };
        match cargo {
            Cargo::Activations { chunk } => (vec![self.boundaries[chunk]], false),
            Cargo::Gradients { chunk } => (vec![self.boundaries[chunk - 1]], true),
            Cargo::Dispatch { chunk, visit: v } => (visit(chunk, v).inputs.clone(), false),
            Cargo::Combine { chunk, visit: v } => (visit(chunk, v).outputs.clone(), false),
            Cargo::CombineGradients { chunk, visit: v } => (visit(chunk, v).outputs.clone(), true),
            Cargo::DispatchGradients { chunk, visit: v } => {
                (graded_inputs(self.sizes.graph, visit(chunk, v)), true)
            }
        }
    }

    fn symbol(&self, port: Port) -> Symbol {
        self.maker.make(self.sizes.edge(self.side, port))
    }

    fn put(&self, flight: &mut Flight<Symbol>, port: Port) {
        flight.put(self.sizes.graph, port, self.symbol(port));
    }

    fn add_gradient(&self, flight: &mut Flight<Symbol>, port: Port) {
        flight.add_gradient(port, self.symbol(port));
    }

    fn receive(&self, flight: &mut Flight<Symbol>, cargo: Cargo) {
        let (ports, gradients) = self.ports(cargo);
        for port in ports {
            if gradients { self.add_gradient(flight, port) } else { self.put(flight, port) }
        }
    }

    fn send(&self, flight: &mut Flight<Symbol>, cargo: Cargo) {
        match cargo {
            Cargo::Dispatch { .. } => {}
            Cargo::Activations { .. } | Cargo::Combine { .. } => flight.clear_values(),
            _ => {
                for port in self.ports(cargo).0 {
                    flight.take_gradient(port);
                }
            }
        }
    }

    fn forward(&self, flight: &mut Flight<Symbol>, chunk: usize, segment: usize) {
        let (graph, plan) = (self.sizes.graph, self.sizes.plan);
        let tasks = &self.tasks[&(chunk, segment)];
        if self.side == Side::Stage && reads_unit(graph, tasks) {
            let token = || self.maker.make(self.sizes.unit());
            flight.set_unit((token(), token()));
        }
        flight.forward(graph, tasks, &mut |task, inputs| self.made(task, inputs));
        if self.side == Side::Stage && segment == plan.chunks[chunk].visits.len() {
            let last = chunk + 1 == plan.chunks.len();
            let sent = !last && !plan.is_local(chunk);
            let output = sent.then(|| flight.value(self.boundaries[chunk]).clone());
            flight.clear_values();
            if let Some(output) = output {
                flight.put(graph, self.boundaries[chunk], output);
            }
        }
    }

    /// What `F` of a node makes and keeps, as its operator declares.
    fn made(&self, task: &Task, inputs: &[Symbol]) -> Made<Symbol> {
        let keeps = task.op.operator().keeps();
        let ports = 0..self.sizes.graph.node(task.node).outputs.len();
        let outputs: Vec<Symbol> = ports.map(|port| self.symbol((task.node, port))).collect();
        let fresh = |&fresh: &ops::Fresh| self.maker.make(self.sizes.fresh(self.side, fresh));
        let fresh: Vec<Symbol> = keeps.fresh.iter().map(fresh).collect();
        let kept = |kept: &ops::Kept| match *kept {
            ops::Kept::Input(input) => inputs[input].clone(),
            ops::Kept::Output(output) => outputs[output].clone(),
            ops::Kept::Fresh(which) => fresh[which].clone(),
        };
        let saved_input = keeps.input.iter().map(kept).collect();
        let saved_weight = keeps.weight.iter().map(kept).collect();
        Made { outputs, saved_input, saved_weight }
    }

    fn backward_input(&self, flight: &mut Flight<Symbol>, chunk: usize, segment: usize) {
        let tasks = &self.tasks[&(chunk, segment)];
        flight.backward_input(self.sizes.graph, tasks, &mut |task, _, dy| self.spread(task, dy));
        let first = self.side == Side::Stage && segment == 0 && chunk > 0;
        if first && self.sizes.plan.is_local(chunk - 1) {
            flight.take_gradient(self.boundaries[chunk - 1]);
        }
    }

    /// The gradients that `I` of a node makes.
    fn spread(&self, task: &Task, dy: &[Symbol]) -> Vec<Option<Symbol>> {
        let graph = self.sizes.graph;
        let passes = task.op.operator().keeps().passes_gradient;
        let gradient = |source: &Source| match *source {
            Source::Tokens | Source::Targets => None,
            Source::Node { node, port } => match graph.node(node).outputs[port].kind {
                ops::Kind::Index => None,
                _ if passes => Some(dy[0].clone()),
                _ => Some(self.symbol((node, port))),
            },
        };
        graph.node(task.node).inputs.iter().map(gradient).collect()
    }
}
