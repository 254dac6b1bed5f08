//! What each instruction does to the flight of its microbatch: the runtime's rules, on paper.

use std::collections::BTreeMap;

use crate::{
    flight::{Flight, Keeping, Made, Task, boundaries, graded_inputs, keepings, reads_unit, tasks},
    memory::{
        sizes::Sizes,
        symbol::{Maker, Symbol},
    },
    model::{Port, Source},
    plan::{Cargo, CopyStep, Instruction, Side, Visit},
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
    /// By chunk, on the experts' side with a visit.
    keepings: BTreeMap<(usize, usize), Keeping>,
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
        let keepings = keepings(plan, graph, stage, side);
        Events { sizes, side, tasks: all, keepings, boundaries, maker: Maker::new(sizes.precision) }
    }

    /// Applies an event to a flight of a chunk, and on the experts' side of a visit.
    pub fn apply(&self, flight: &mut Flight<Symbol>, home: (usize, usize), event: Event) {
        let (graph, keeping) = (self.sizes.graph, &self.keepings[&home]);
        let of = |channel: usize| self.sizes.plan.channels[channel].cargo;
        let mut run = |task: &Task, inputs: &[Symbol]| self.made(task, inputs);
        match event {
            Event::Enter => self.put(flight, keeping, self.boundaries[home.0 - 1]),
            Event::Return => self.add_gradient(flight, self.boundaries[home.0]),
            Event::Do(Instruction::Receive { channel, .. }) => {
                self.receive(flight, keeping, of(channel));
            }
            Event::Do(Instruction::Send { channel, .. }) => {
                self.send(flight, keeping, of(channel));
            }
            Event::Do(Instruction::Forward { chunk, segment, .. }) => {
                self.forward(flight, keeping, (chunk, segment));
            }
            Event::Do(Instruction::Restore { chunk, segment, .. }) => {
                flight.restore(graph, keeping, &self.tasks[&(chunk, segment)], &mut run);
            }
            Event::Do(Instruction::Copy { step, .. }) => self.copy(flight, keeping, step),
            Event::Do(Instruction::BackwardInput { chunk, segment, .. }) => {
                self.backward_input(flight, keeping, (chunk, segment));
            }
            Event::Do(Instruction::BackwardWeight { chunk, segment, .. }) => {
                let tasks = self.tasks[&(chunk, segment)].iter().rev();
                let trained = |task: &&Task| !graph.node(task.node).parameters.is_empty();
                let each = |task: &Task| flight.backward_weight(keeping, task.node, |_, _| ());
                tasks.filter(trained).for_each(each);
            }
            Event::Do(Instruction::Reduce { .. }) => {}
        }
    }

    fn copy(&self, flight: &mut Flight<Symbol>, keeping: &Keeping, step: CopyStep) {
        let graph = self.sizes.graph;
        let stored = self.sizes.plan.policies.offloads().is_some_and(|how| how.stored);
        match step {
            CopyStep::Offload => {
                let batch = flight.leaving(graph, keeping, stored);
                flight.offload(graph, keeping, &batch);
            }
            CopyStep::Offloaded => {
                let batch = flight.leaving(graph, keeping, stored);
                flight.offloaded(batch);
            }
            CopyStep::Fetch => {
                let batch = flight.coming();
                flight.fetch(graph, keeping, &batch);
            }
            CopyStep::Fetched => {
                let batch = flight.coming();
                flight.fetched(graph, keeping, batch);
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

    fn put(&self, flight: &mut Flight<Symbol>, keeping: &Keeping, port: Port) {
        flight.put(self.sizes.graph, keeping, port, self.symbol(port));
    }

    fn add_gradient(&self, flight: &mut Flight<Symbol>, port: Port) {
        flight.add_gradient(port, self.symbol(port));
    }

    fn receive(&self, flight: &mut Flight<Symbol>, keeping: &Keeping, cargo: Cargo) {
        let (ports, gradients) = self.ports(cargo);
        for port in ports {
            match gradients {
                true => self.add_gradient(flight, port),
                false => self.put(flight, keeping, port),
            }
        }
    }

    fn send(&self, flight: &mut Flight<Symbol>, keeping: &Keeping, cargo: Cargo) {
        let (ports, gradients) = self.ports(cargo);
        for port in ports {
            match gradients {
                true => drop(flight.take_gradient(port)),
                false => flight.read(self.sizes.graph, keeping, port),
            }
        }
    }

    fn forward(
        &self,
        flight: &mut Flight<Symbol>,
        keeping: &Keeping,
        (chunk, segment): (usize, usize),
    ) {
        let (graph, plan) = (self.sizes.graph, self.sizes.plan);
        let tasks = &self.tasks[&(chunk, segment)];
        if self.side == Side::Stage && reads_unit(graph, tasks) {
            let token = || self.maker.make(self.sizes.unit());
            flight.set_unit((token(), token()));
        }
        flight.forward(graph, keeping, tasks, &mut |task, inputs| self.made(task, inputs));
        let ends = self.side == Side::Stage && segment == plan.chunks[chunk].visits.len();
        if ends && chunk + 1 < plan.chunks.len() && plan.is_local(chunk) {
            flight.read(graph, keeping, self.boundaries[chunk]);
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

    fn backward_input(
        &self,
        flight: &mut Flight<Symbol>,
        keeping: &Keeping,
        (chunk, segment): (usize, usize),
    ) {
        let tasks = &self.tasks[&(chunk, segment)];
        let mut run = |task: &Task, _: &[Symbol], dy: &[Symbol]| self.spread(task, dy);
        flight.backward_input(self.sizes.graph, keeping, tasks, &mut run);
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
