//! The nodes of a flight, and what they read and send.

use ops::{Kind, Op};

use crate::{
    model::{ModelGraph, NodeId, Port, Source},
    plan::{Plan, Side, Visit},
};

/// A node as one actor runs it: the operator may know fewer experts than the model's.
#[derive(Clone, Debug, PartialEq)]
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
