//! Laws that only the whole graph shows: one loss, nothing unread, rows through their experts.

use ops::{Kind, Op};
use petgraph::{Direction, graph::NodeIndex};

use super::Builder;
use crate::model::{Clip, ModelError, Node, NodeId, Source};

impl Builder {
    /// Checks the laws.
    pub(super) fn check_whole(&mut self) {
        self.check_loss();
        for id in 0..self.graph.node_count() {
            self.check_read(id);
            self.check_routing(id);
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.graph[NodeIndex::new(id)]
    }

    fn check_loss(&mut self) {
        let is_loss = |id: &NodeId| matches!(self.node(*id).op, Op::CrossEntropy(_));
        let losses: Vec<NodeId> = (0..self.graph.node_count()).filter(is_loss).collect();
        let got = match losses[..] {
            [] => "none".to_string(),
            [id] if id + 1 == self.graph.node_count() => return,
            [id] => format!("`{}` before the end", self.node(id).name),
            _ => losses.len().to_string(),
        };
        self.errors.push(ModelError::Loss { got });
    }

    fn check_read(&mut self, id: NodeId) {
        let edges = self.graph.edges_directed(NodeIndex::new(id), Direction::Outgoing);
        let read: Vec<usize> = edges.map(|edge| edge.weight().port).collect();
        let node = self.node(id);
        let unread = |port: &usize| node.outputs[*port].kind != Kind::Index && !read.contains(port);
        let ports: Vec<usize> = (0..node.outputs.len()).filter(unread).collect();
        let name = node.name.clone();
        let error = |port| ModelError::Unread { node: name.clone(), port };
        self.errors.extend(ports.into_iter().map(error));
    }

    /// Rows enter a visit to the experts only through its dispatch, and leave through a combine
    /// that knows the same choice.
    fn check_routing(&mut self, id: NodeId) {
        let node = self.node(id);
        let combines = matches!(node.op, Op::Combine(_));
        if !node.on_experts() && !combines {
            return;
        }
        let rows = if combines { &node.inputs[..1] } else { &node.inputs[..] };
        let mut dispatches: Vec<Option<NodeId>> = rows.iter().map(|&s| self.dispatch(s)).collect();
        dispatches.dedup();
        let what = match dispatches[..] {
            [Some(dispatch)] if combines && node.inputs[1] != self.node(dispatch).inputs[1] => {
                "come back to another choice of experts than the one they were sent by"
            }
            [Some(_)] => return,
            [None] => "come from no Dispatch",
            _ => "are mixed with what another Dispatch, or none, has sent",
        };
        let node = node.name.clone();
        self.errors.push(ModelError::Routing { node, what });
    }

    /// The dispatch whose rows, or counts, a source carries.
    fn dispatch(&self, mut source: Source) -> Option<NodeId> {
        while let Source::Node { node: id, .. } = source {
            let node = self.node(id);
            match node.op {
                Op::Dispatch(_) => return Some(id),
                _ if node.on_experts() => source = node.inputs[0],
                _ => return None,
            }
        }
        None
    }

    /// Finds the weights behind the queries and keys of each attention.
    pub(super) fn find_clips(&mut self) {
        for id in 0..self.graph.node_count() {
            let node = self.node(id);
            let Op::MlaAttention(ref op) = node.op else { continue };
            let (heads, nope, rope, value) = (op.heads, op.nope, op.rope, op.value);
            let (query, keys) = (node.inputs[0], node.inputs[1]);
            match (self.weight(id, query, "queries"), self.weight(id, keys, "keys and values")) {
                (Ok(query), Ok(keys)) => {
                    self.clips.push(Clip { attention: id, query, keys, heads, nope, rope, value });
                }
                (query, keys) => self.errors.extend(query.err().into_iter().chain(keys.err())),
            }
        }
    }

    /// The parameter of the Linear behind a source.
    fn weight(
        &self,
        attention: NodeId,
        source: Source,
        what: &'static str,
    ) -> Result<usize, ModelError> {
        let maker = match source {
            Source::Node { node, .. } => Some(self.node(node)),
            Source::Tokens | Source::Targets => None,
        };
        match maker {
            Some(Node { op: Op::Linear(_), parameters, .. }) => Ok(parameters.start),
            _ => {
                let from = maker.map_or("tokens".into(), |node| node.name.clone());
                Err(ModelError::NoClip { node: self.node(attention).name.clone(), what, from })
            }
        }
    }
}
