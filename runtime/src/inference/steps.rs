//! The model as a list of steps over numbered edges, made once, to read token by token.

use std::collections::BTreeMap;

use graphs::model::{ModelGraph, NodeId, Port, Source};
use ops::{
    DType, Dim, Kind, Op, Spec, Tensor,
    ready::{Ready, ReadyAttention, Weight},
};

/// Edge that carries the tokens read.
pub(super) const TOKENS: usize = 0;

/// What is done for every token, in order, and the head.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) all: Vec<Step>,
    /// Edges that there are; one is used again when all have read it.
    pub(super) edges: usize,
    /// Edge that the head reads.
    pub(super) last: usize,
    pub(super) head: Weight,
}

/// One operator with the edges it reads and writes.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) work: Work,
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

/// What a step computes.
#[derive(Debug)]
pub(super) enum Work {
    /// Rows alone.
    Plain(Ready),
    /// Rows and what is kept of their texts.
    Attend(ReadyAttention),
}

impl Steps {
    /// Packs the weights of a model.
    pub(super) fn new(graph: &ModelGraph, weights: &[Tensor], dtype: DType) -> Self {
        let absorbed = absorbed(graph);
        let nodes: Vec<NodeId> = (0..graph.len()).filter(|id| !absorbed.contains(id)).collect();
        let reads: Vec<_> = nodes.iter().map(|id| reads(graph, *id)).collect();
        let mut edges = Edges::new(&reads);
        let mut all = Vec::new();
        for (step, &id) in nodes.iter().enumerate() {
            let node = graph.node(id);
            let own = &weights[node.parameters.clone()];
            let inputs = edges.read(&reads[step]);
            let work = match &node.op {
                Op::CrossEntropy(_) => {
                    let (edges, last) = (edges.specs.len(), inputs[0]);
                    return Steps { all, edges, last, head: Weight::new(&own[0]) };
                }
                Op::MlaAttention(op) => {
                    Work::Attend(ReadyAttention::new(op, &weights[keys(graph, id)], dtype))
                }
                op => Work::Plain(Ready::new(op, own, dtype).expect("any other operator is plain")),
            };
            let outputs = edges.write(step, id, &node.outputs);
            all.push(Step { work, inputs, outputs });
        }
        unreachable!("every model graph ends in a loss node")
    }
}

/// The parameter that makes keys and values of an attention.
fn keys(graph: &ModelGraph, attention: NodeId) -> usize {
    let clip = graph.clips().iter().find(|clip| clip.attention == attention);
    clip.expect("every attention node has a clip").keys
}

/// Nodes whose only use is as keys and values of an attention node.
fn absorbed(graph: &ModelGraph) -> Vec<NodeId> {
    let producers = graph.clips().iter().map(|clip| graph.parameters()[clip.keys].node);
    let reads = |id: NodeId, producer| {
        let mut inputs = graph.node(id).inputs.iter();
        inputs.any(|s| matches!(s, Source::Node { node, .. } if *node == producer))
    };
    let readers = |producer| (0..graph.len()).filter(|id| reads(*id, producer)).count();
    producers.filter(|producer| readers(*producer) == 1).collect()
}

/// What a node reads: its inputs, except that an attention reads the latents of its keys.
fn reads(graph: &ModelGraph, id: NodeId) -> Vec<Source> {
    let mut sources = graph.node(id).inputs.clone();
    if matches!(graph.node(id).op, Op::MlaAttention(_)) {
        let producer = graph.parameters()[keys(graph, id)].node;
        sources[1] = graph.node(producer).inputs[0];
    }
    sources
}

/// Hands out edges to values, and again when the last step has read them.
struct Edges {
    /// The last step that reads a value.
    last: BTreeMap<Port, usize>,
    held: BTreeMap<Port, usize>,
    /// What each edge carries; used again for the same, so that its memory never grows anew.
    specs: Vec<Spec>,
    free: Vec<usize>,
}

impl Edges {
    fn new(reads: &[Vec<Source>]) -> Self {
        let mut last = BTreeMap::new();
        for (step, sources) in reads.iter().enumerate() {
            last.extend(sources.iter().filter_map(|source| Some((port(source)?, step))));
        }
        let tokens = Spec { dims: vec![Dim::Tokens], kind: Kind::Index };
        Edges { last, held: BTreeMap::new(), specs: vec![tokens], free: Vec::new() }
    }

    fn read(&self, sources: &[Source]) -> Vec<usize> {
        let edge = |source| port(source).map_or(TOKENS, |port| self.held[&port]);
        sources.iter().map(edge).collect()
    }

    /// Edges for the outputs of a step; those of its inputs are free only after it.
    fn write(&mut self, step: usize, id: NodeId, outputs: &[Spec]) -> Vec<usize> {
        let mut edges = Vec::new();
        for (port, spec) in outputs.iter().enumerate() {
            let edge = match self.free.iter().position(|edge| self.specs[*edge] == *spec) {
                Some(at) => self.free.swap_remove(at),
                None => {
                    self.specs.push(spec.clone());
                    self.specs.len() - 1
                }
            };
            self.held.insert((id, port), edge);
            edges.push(edge);
        }
        let is_spent = |port: &Port| self.last.get(port).is_none_or(|last| *last <= step);
        let spent = self.held.extract_if(.., |port, _| is_spent(port));
        self.free.extend(spent.map(|(_, edge)| edge));
        edges
    }
}

fn port(source: &Source) -> Option<Port> {
    match source {
        Source::Tokens | Source::Targets => None,
        Source::Node { node, port } => Some((*node, *port)),
    }
}
