//! The model as a petgraph DAG for one microbatch, with shapes along its edges.
//!
//! Laws: a node reads only nodes before it; shapes fit; every activation is read by somebody;
//! the one loss stands last; routed rows go from one dispatch through experts to a combine. A
//! [`ModelGraph`] that exists keeps them all, and nobody checks them again.

use std::ops::Range;

use ops::{Op, Spec, WeightSpec, Yarn};
use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};

use crate::edge::Class;

mod build;
mod error;

pub use crate::model::error::ModelError;

/// Position of a node in execution order.
pub type NodeId = usize;

/// A tensor of the graph: the node that makes it and which of its outputs it is.
pub type Port = (NodeId, usize);

/// Where an input comes from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// Token numbers of the microbatch, `[t]`.
    Tokens,
    /// Token numbers shifted by one, `[t]`: what the loss compares with.
    Targets,
    /// An output of an earlier node.
    Node {
        /// The node.
        node: NodeId,
        /// Which of its outputs.
        port: usize,
    },
}

/// One operator in its place in the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Whole name, as its parameters carry it.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Layer, counted over all repeats; none for what stands outside them.
    pub layer: Option<usize>,
    /// What it reads, in the operator's order.
    pub inputs: Vec<Source>,
    /// Shapes of what it makes.
    pub outputs: Vec<Spec>,
    /// Its part of [`ModelGraph::parameters`].
    pub parameters: Range<usize>,
}

impl Node {
    /// Whether it lives on the expert groups: it makes routed rows, and not by sorting tokens.
    pub fn on_experts(&self) -> bool {
        let rows = self.outputs.iter().any(|spec| spec.dims.first() == Some(&ops::Dim::Rows));
        rows && !matches!(self.op, Op::Dispatch(_))
    }
}

/// What an edge of the petgraph says: which output feeds which input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edge {
    /// Output of the node the edge leaves.
    pub port: usize,
    /// Input of the node the edge enters.
    pub input: usize,
}

/// One weight tensor of the model, under the name checkpoints know it by.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Node's name, `.`, weight's name; an expert's number stands for `*`.
    pub name: String,
    /// Node it belongs to.
    pub node: NodeId,
    /// Position among the weights of the node's operator.
    pub index: usize,
    /// Expert of the layer it belongs to.
    pub expert: Option<usize>,
    /// Shape, first values, rule.
    pub spec: WeightSpec,
}

impl Parameter {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.spec.shape.iter().product()
    }

    /// Number of values in a row, of which the first dim counts many.
    pub fn columns(&self) -> usize {
        self.spec.shape[1..].iter().product()
    }

    /// Format in which forward and backward read it in a job of that precision.
    pub fn format(&self, precision: ops::DType) -> ops::DType {
        let exact = self.spec.exact || self.spec.rule == ops::Rule::Balance;
        if exact { ops::DType::F32 } else { precision }
    }
}

/// Two weights that QK-Clip shrinks when an attention's logits grow; K2 report, section 2.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Clip {
    /// The attention whose largest logits decide.
    pub attention: NodeId,
    /// Parameter that makes the queries: per head `nope` rows, then `rope` rows.
    pub query: usize,
    /// Parameter that makes keys and values: per head `nope` rows, then `value` rows.
    pub keys: usize,
    /// Heads.
    pub heads: usize,
    /// Width of the part of a head without positions.
    pub nope: usize,
    /// Width of the rotated part of a head.
    pub rope: usize,
    /// Width of a head's values.
    pub value: usize,
}

/// A model whose names, order and shapes are known to be right.
#[derive(Clone, Debug)]
pub struct ModelGraph {
    graph: DiGraph<Node, Edge>,
    parameters: Vec<Parameter>,
    clips: Vec<Clip>,
    /// Class of each output of each node.
    classes: Vec<Vec<Class>>,
}

impl ModelGraph {
    /// The petgraph: node indices are execution order.
    pub fn graph(&self) -> &DiGraph<Node, Edge> {
        &self.graph
    }

    /// The same model with the rotation of every attention stretched so; no weight changes. None if
    /// the model has no attention that rotates.
    pub fn stretched(&self, yarn: &Yarn) -> Option<Self> {
        let mut graph = self.clone();
        let mut found = false;
        for node in graph.graph.node_weights_mut() {
            if let Op::MlaAttention(attention) = &mut node.op {
                attention.yarn = Some(yarn.clone());
                found = true;
            }
        }
        found.then_some(graph)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there is no node, which no checked model is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The nodes in execution order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> + Clone {
        self.graph.raw_nodes().iter().map(|node| &node.weight)
    }

    /// One node.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph[NodeIndex::new(id)]
    }

    /// Who reads the outputs of a node, as (output port, reader, reader's input), in the order
    /// of the readers.
    pub fn consumers(&self, id: NodeId) -> Vec<(usize, NodeId, usize)> {
        let edges = self.graph.edges_directed(NodeIndex::new(id), Direction::Outgoing);
        let reader = |edge: petgraph::graph::EdgeReference<'_, Edge>| {
            (edge.weight().port, edge.target().index(), edge.weight().input)
        };
        let mut readers: Vec<_> = edges.map(reader).collect();
        readers.sort_by_key(|&(port, node, input)| (node, input, port));
        readers
    }

    /// The class of a tensor of the graph.
    ///
    /// # Panics
    ///
    /// If there is no such tensor.
    pub fn class(&self, (node, port): Port) -> Class {
        self.classes[node][port]
    }

    /// Finds the class of every tensor.
    fn classified(self) -> Self {
        let class = |id: NodeId| {
            let (node, readers) = (self.node(id), self.consumers(id));
            let of = |(port, spec): (usize, &Spec)| {
                let readers = readers.iter().filter(|(from, _, _)| *from == port);
                let readers: Vec<&Op> = readers.map(|&(_, to, _)| &self.node(to).op).collect();
                Class::of_edge(&node.op, spec, &readers)
            };
            node.outputs.iter().enumerate().map(of).collect()
        };
        let classes = (0..self.len()).map(class).collect();
        ModelGraph { classes, ..self }
    }

    /// The last node that reads anything of a node, or the node itself.
    fn last_reader(&self, id: NodeId) -> NodeId {
        self.graph.neighbors(NodeIndex::new(id)).map(NodeIndex::index).max().unwrap_or(id)
    }

    /// All weights, in execution order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The weights that QK-Clip looks after.
    pub fn clips(&self) -> &[Clip] {
        &self.clips
    }

    /// The tensors that nodes before `cut` make and nodes from `cut` on read.
    pub fn crossing(&self, cut: NodeId) -> Vec<Port> {
        let mut ports = Vec::new();
        for id in (0..cut).filter(|&id| self.last_reader(id) >= cut) {
            let late = self.consumers(id).into_iter().filter(|&(_, reader, _)| reader >= cut);
            ports.extend(late.map(|(port, _, _)| (id, port)));
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Where the model may be cut: between these nodes and the ones before them exactly one
    /// tensor of activations crosses, so half a layer can be a piece too.
    pub fn cut_points(&self) -> Vec<NodeId> {
        let readers: Vec<NodeId> = (0..self.len()).map(|id| self.last_reader(id)).collect();
        let mut open: Vec<NodeId> = Vec::new();
        let mut cuts = Vec::new();
        for cut in 1..self.len() {
            open.push(cut - 1);
            open.retain(|&id| readers[id] >= cut);
            if open.len() == 1 && self.is_cut(cut, open[0]) {
                cuts.push(cut);
            }
        }
        cuts
    }

    /// Whether one tensor of token activations of `open` is all that crosses `cut`.
    fn is_cut(&self, cut: NodeId, open: NodeId) -> bool {
        let late = self.consumers(open).into_iter().filter(|&(_, reader, _)| reader >= cut);
        let mut ports: Vec<usize> = late.map(|(port, _, _)| port).collect();
        ports.dedup();
        let [port] = ports[..] else { return false };
        let spec = &self.node(open).outputs[port];
        spec.kind == ops::Kind::Activation && spec.dims.first() == Some(&ops::Dim::Tokens)
    }
}
