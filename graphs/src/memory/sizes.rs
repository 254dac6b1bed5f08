//! Bytes of edges, of what operators keep, and of the gradient sums of a segment.

use ops::{DType, Fresh, Kind, Op, Rule};

use crate::{
    flight::{Amount, Task},
    model::{ModelGraph, NodeId, Port, Source},
    plan::{Plan, Side},
};

/// Sizes in a plan, for activations of one precision.
pub(crate) struct Sizes<'a> {
    pub graph: &'a ModelGraph,
    pub plan: &'a Plan,
    pub precision: DType,
    /// Tokens of a unit.
    pub tokens: usize,
    /// Routed rows that each token makes, for the nodes that make or read rows.
    rows_per_token: Vec<usize>,
}

impl<'a> Sizes<'a> {
    pub fn new(graph: &'a ModelGraph, plan: &'a Plan, precision: DType) -> Self {
        let tokens = plan.batch.microbatch * plan.batch.context;
        let mut rows_per_token: Vec<usize> = Vec::with_capacity(graph.len());
        for node in graph.nodes() {
            let own = match (&node.op, node.inputs.first()) {
                (Op::Dispatch(op), _) => op.experts_per_token,
                (_, Some(&Source::Node { node, .. })) => rows_per_token[node],
                _ => 0,
            };
            rows_per_token.push(own);
        }
        Sizes { graph, plan, precision, tokens, rows_per_token }
    }

    /// Rows that the tokens of a unit make in the dispatch behind a node.
    pub fn rows(&self, node: NodeId) -> usize {
        self.tokens * self.rows_per_token[node]
    }

    /// An edge, or its gradient, where a side holds it.
    ///
    /// A stage holds all rows of its own tokens, however they are routed; an expert group holds
    /// those that came, and the counts of its own experts.
    pub fn edge(&self, side: Side, (node, port): Port) -> Amount {
        let spec = &self.graph.node(node).outputs[port];
        let bytes = |rows| spec.bytes(self.tokens, rows, self.precision);
        match (side, spec.kind) {
            (Side::Stage, _) => Amount { fixed: bytes(self.rows(node)), per_row: 0 },
            (Side::Experts, Kind::Index) => {
                Amount { fixed: bytes(0) / self.plan.mesh.ep as u64, per_row: 0 }
            }
            (Side::Experts, _) => Amount { fixed: bytes(0), per_row: bytes(1) - bytes(0) },
        }
    }

    /// What an operator keeps beside its edges; to an expert group, tokens are rows.
    pub fn fresh(&self, side: Side, fresh: Fresh) -> Amount {
        let bytes = |tokens| fresh.bytes(tokens, self.precision);
        match side {
            Side::Stage => Amount { fixed: bytes(self.tokens), per_row: 0 },
            Side::Experts => Amount { fixed: bytes(0), per_row: bytes(1) - bytes(0) },
        }
    }

    /// Token numbers of a unit, and as many targets.
    pub fn unit(&self) -> Amount {
        Amount { fixed: (self.tokens * DType::I32.size()) as u64, per_row: 0 }
    }
}

/// Bytes of one lane of the weight gradients of some nodes; biases that counts move have none.
pub(super) fn lane_bytes(tasks: &[Task]) -> u64 {
    let weights = tasks.iter().flat_map(|task| task.op.operator().weights());
    let weights = weights.filter(|weight| weight.rule != Rule::Balance);
    let elements = weights.map(|weight| weight.shape.iter().product::<usize>());
    (elements.sum::<usize>() * DType::F32.size()) as u64
}
