//! What the flights of a chunk keep for the backward pass, how, and until when.
//!
//! All of it follows from the nodes and the policies, so it is found once, before anything runs.

use std::collections::{BTreeMap, BTreeSet};

use ops::{Dim, Kept as Saved, Kind};

use crate::{
    flight::{Task, boundaries, tasks},
    model::{ModelGraph, NodeId, Port, Source},
    plan::{Plan, Side},
    policy::Policies,
};

/// Something that the backward pass reads.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Item {
    /// Token numbers of the microbatch.
    Tokens,
    /// The tokens that follow them.
    Targets,
    /// An output of a node, made here or arrived.
    Edge(Port),
    /// What a node keeps beside its edges, by its position in [`ops::Keeps::fresh`].
    Beside(NodeId, usize),
}

impl From<Source> for Item {
    fn from(source: Source) -> Self {
        match source {
            Source::Tokens => Item::Tokens,
            Source::Targets => Item::Targets,
            Source::Node { node, port } => Item::Edge((node, port)),
        }
    }
}

/// How an item is held from its last reader forward to its first one backward.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Form {
    /// As it was made.
    #[default]
    Plain,
    /// In FP8, in tiles along rows of so many elements.
    Fp8(usize),
    /// Not at all: its node runs again.
    Absent,
}

/// An item in the eyes of the plan.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    /// How many halves of nodes, and nodes that run again, read it.
    pub uses: usize,
    /// How it is held meanwhile.
    pub form: Form,
}

/// What is done before a backward pass to make what it reads as it was.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Restoring {
    /// Nodes that run again.
    pub again: Vec<NodeId>,
    /// Edges that are decoded.
    pub decoded: Vec<Port>,
}

impl Restoring {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.again.is_empty() && self.decoded.is_empty()
    }
}

/// The two halves of the backward pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Half {
    /// `I`.
    Input = 0,
    /// `W`.
    Weight = 1,
}

/// What the flights of one chunk, or of one visit, keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keeping {
    /// What `I` and `W` of each node read, in the operator's order.
    halves: BTreeMap<NodeId, [Vec<Item>; 2]>,
    /// How many nodes here, and sends, read an edge forward.
    reads: BTreeMap<Port, usize>,
    items: BTreeMap<Item, Kept>,
    /// The nodes, by number.
    tasks: BTreeMap<NodeId, Task>,
}

impl Keeping {
    /// Finds what flights through `segments` keep; `sent` leave the flight as messages.
    pub fn new(
        graph: &ModelGraph,
        segments: &[Vec<Task>],
        sent: &[Port],
        policies: &Policies,
    ) -> Self {
        let mut keeping = Keeping::default();
        for task in segments.iter().flat_map(|tasks| tasks.iter()) {
            keeping.tasks.insert(task.node, task.clone());
            keeping.add(graph, task);
        }
        sent.iter().for_each(|port| *keeping.reads.entry(*port).or_default() += 1);
        keeping.leave_out(graph, policies);
        keeping.shrink(graph, policies);
        keeping
    }

    /// Notes what a node reads, forward and backward.
    fn add(&mut self, graph: &ModelGraph, task: &Task) {
        let (node, keeps) = (graph.node(task.node), task.op.operator().keeps());
        let item = |kept: &Saved| match *kept {
            Saved::Input(input) => node.inputs[input].into(),
            Saved::Output(port) => Item::Edge((task.node, port)),
            Saved::Fresh(which) => Item::Beside(task.node, which),
        };
        let weight = if node.parameters.is_empty() { &[][..] } else { &keeps.weight };
        let halves = [&keeps.input, weight].map(|half| half.iter().map(item).collect::<Vec<_>>());
        for item in halves.iter().flatten() {
            self.items.entry(*item).or_default().uses += 1;
        }
        self.halves.insert(task.node, halves);
        for source in &node.inputs {
            if let Source::Node { node, port } = *source {
                *self.reads.entry((node, port)).or_default() += 1;
            }
        }
    }

    /// Marks what the policies compute again, and keeps what that is computed from.
    fn leave_out(&mut self, graph: &ModelGraph, policies: &Policies) {
        let mut open: Vec<Item> = self.items.keys().copied().collect();
        let mut again = Vec::new();
        while let Some(item) = open.pop() {
            let Item::Edge((node, _)) = item else { continue };
            let is_here = self.tasks.contains_key(&node);
            if !is_here || !policies.recomputes(graph, node) {
                continue;
            }
            self.items.entry(item).or_default().form = Form::Absent;
            if again.contains(&node) {
                continue;
            }
            again.push(node);
            for source in &graph.node(node).inputs {
                let input = Item::from(*source);
                self.items.entry(input).or_default().uses += 1;
                open.push(input);
            }
        }
    }

    /// Marks what the policies store in FP8, of what is left.
    fn shrink(&mut self, graph: &ModelGraph, policies: &Policies) {
        for (item, kept) in &mut self.items {
            let Item::Edge((node, port)) = *item else { continue };
            let spec = &graph.node(node).outputs[port];
            let is_number = spec.kind == Kind::Activation && kept.form == Form::Plain;
            let Some(Dim::Of(width)) = spec.dims.last().filter(|_| is_number) else { continue };
            if policies.stores(graph.class((node, port))) {
                kept.form = Form::Fp8(*width);
            }
        }
    }

    /// What a half of a node's backward pass reads, in the operator's order.
    ///
    /// # Panics
    ///
    /// If the node is of another chunk.
    pub fn half(&self, node: NodeId, half: Half) -> &[Item] {
        &self.halves[&node][half as usize]
    }

    /// How many readers forward an edge has here.
    pub fn reads(&self, port: Port) -> usize {
        self.reads.get(&port).copied().unwrap_or(0)
    }

    /// How an item is kept; nothing if no half reads it.
    pub fn item(&self, item: Item) -> Option<Kept> {
        self.items.get(&item).copied()
    }

    /// A node of the chunk as this actor runs it.
    ///
    /// # Panics
    ///
    /// If the node is of another chunk.
    pub fn task(&self, node: NodeId) -> &Task {
        &self.tasks[&node]
    }

    /// What restoring does before the backward pass of each segment, from the last to the first.
    pub fn restorings(&self, graph: &ModelGraph, segments: &[Vec<Task>]) -> Vec<Restoring> {
        let (mut done, mut all) = (BTreeSet::new(), Vec::new());
        for tasks in segments.iter().rev() {
            let mut restoring = Restoring::default();
            let halves = tasks.iter().flat_map(|task| self.halves[&task.node].iter().flatten());
            halves.for_each(|item| self.follow(graph, *item, &mut done, &mut restoring));
            all.push(restoring);
        }
        all.reverse();
        all
    }

    fn follow(
        &self,
        graph: &ModelGraph,
        item: Item,
        done: &mut BTreeSet<Item>,
        restoring: &mut Restoring,
    ) {
        let (Item::Edge(port), true) = (item, done.insert(item)) else { return };
        match self.items[&item].form {
            Form::Plain => {}
            Form::Fp8(_) => restoring.decoded.push(port),
            Form::Absent => {
                let inputs = graph.node(port.0).inputs.iter();
                inputs.for_each(|it| self.follow(graph, (*it).into(), done, restoring));
                restoring.again.push(port.0);
            }
        }
    }

    /// The items that are kept, with how.
    pub fn items(&self) -> impl Iterator<Item = (Item, Kept)> {
        self.items.iter().map(|(item, kept)| (*item, *kept))
    }
}

/// What the flights of an actor keep, by chunk and, on the experts' side, visit.
pub fn keepings(
    plan: &Plan,
    graph: &ModelGraph,
    stage: usize,
    side: Side,
) -> BTreeMap<(usize, usize), Keeping> {
    let boundaries = boundaries(plan, graph);
    let mut all = BTreeMap::new();
    for (number, chunk) in plan.chunks.iter().enumerate().filter(|(_, c)| c.stage == stage) {
        let segment = |segment| tasks(plan, graph, side, number, segment);
        let new = |segments: &[Vec<Task>], sent: &[Port]| {
            Keeping::new(graph, segments, sent, &plan.policies)
        };
        match side {
            Side::Stage => {
                let segments: Vec<Vec<Task>> = (0..chunk.segments.len()).map(segment).collect();
                let dispatched = chunk.visits.iter().flat_map(|visit| &visit.inputs);
                let sent: Vec<Port> =
                    boundaries.get(number).into_iter().chain(dispatched).copied().collect();
                all.insert((number, 0), new(&segments, &sent));
            }
            Side::Experts => {
                for (visit, it) in chunk.visits.iter().enumerate() {
                    all.insert((number, visit), new(&[segment(visit)], &it.outputs));
                }
            }
        }
    }
    all
}
