//! What crosses between places: chunks cut into segments and visits, and the channels between.
//!
//! Operators never communicate; edges do. An edge between chunks on different stages becomes a
//! pipeline channel, one between a rank's own tokens and the experts becomes an all-to-all.

use std::{collections::BTreeMap, ops::Range};

use ops::Op;

use crate::{
    model::{ModelGraph, NodeId, Port, Source},
    plan::{Cargo, Channel, ChannelId, Chunk, Side, Visit},
};

/// Cuts the nodes of a chunk into what its stage computes and what the expert groups do.
///
/// A segment ends with the dispatch whose rows the experts visit; what reads the rows that come
/// back stands after it in execution order, hence in a later segment.
pub fn chunk(graph: &ModelGraph, nodes: Range<NodeId>, stage: usize, ep: usize) -> Chunk {
    let mut segments = vec![Vec::new()];
    let mut visits: BTreeMap<NodeId, Visit> = BTreeMap::new();
    let mut homes: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for id in nodes.clone() {
        let node = graph.node(id);
        if node.on_experts() {
            let home = home(&node.inputs, &homes);
            homes.insert(id, home);
            visits.entry(home).or_default().nodes.push((id, group_part(&node.op, ep)));
            continue;
        }
        segments.last_mut().expect("there is a first segment").push(id);
        let Op::Dispatch(ref dispatch) = node.op else { continue };
        if graph.consumers(id).iter().any(|&(_, reader, _)| graph.node(reader).on_experts()) {
            visits.insert(id, Visit { experts: dispatch.experts, ..Visit::default() });
            segments.push(Vec::new());
        }
    }
    let finished = |(dispatch, mut visit): (NodeId, Visit)| {
        visit.inputs = crossing(graph, &[dispatch], |reader| homes.contains_key(&reader));
        let made: Vec<NodeId> = visit.nodes.iter().map(|&(id, _)| id).collect();
        visit.outputs = crossing(graph, &made, |reader| !homes.contains_key(&reader));
        visit
    };
    let visits = visits.into_iter().map(finished).collect();
    Chunk { stage, nodes, segments, visits, restored: Default::default() }
}

/// The dispatch behind an expert node: the one it reads, or that of what it reads.
fn home(inputs: &[Source], homes: &BTreeMap<NodeId, NodeId>) -> NodeId {
    let from = inputs.iter().find_map(|source| match *source {
        Source::Node { node, .. } => Some(homes.get(&node).copied().unwrap_or(node)),
        Source::Tokens | Source::Targets => None,
    });
    from.expect("a checked model sends rows to experts through a dispatch")
}

/// The operator as one of `ep` groups has it.
fn group_part(op: &Op, ep: usize) -> Op {
    match op {
        Op::GroupedLinear(grouped) => Op::GroupedLinear(grouped.part(grouped.experts / ep)),
        op => op.clone(),
    }
}

/// Output ports of some nodes that readers of a kind read.
fn crossing(graph: &ModelGraph, nodes: &[NodeId], reads: impl Fn(NodeId) -> bool) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for &id in nodes {
        let readers = graph.consumers(id).into_iter().filter(|&(_, reader, _)| reads(reader));
        ports.extend(readers.map(|(port, _, _)| (id, port)));
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// All channels of a plan, each with one credit.
///
/// Neighbouring chunks on one stage hand over in memory and have none.
pub fn channels(chunks: &[Chunk]) -> Vec<Channel> {
    let mut channels = Vec::new();
    for (chunk, Chunk { stage, visits, .. }) in chunks.iter().enumerate() {
        let mut between = |cargo, to: Option<&Chunk>| {
            if let Some(to) = to.filter(|to| to.stage != *stage) {
                let (from, to) = ((*stage, Side::Stage), (to.stage, Side::Stage));
                channels.push(Channel { from, to, cargo, credits: 1 });
            }
        };
        between(Cargo::Activations { chunk }, chunks.get(chunk + 1));
        between(Cargo::Gradients { chunk }, chunk.checked_sub(1).map(|before| &chunks[before]));
        let (here, there) = ((*stage, Side::Stage), (*stage, Side::Experts));
        for visit in 0..visits.len() {
            let mut add = |from, to, cargo| {
                channels.push(Channel { from, to, cargo, credits: 1 });
            };
            add(here, there, Cargo::Dispatch { chunk, visit });
            add(there, here, Cargo::Combine { chunk, visit });
            add(here, there, Cargo::CombineGradients { chunk, visit });
            add(there, here, Cargo::DispatchGradients { chunk, visit });
        }
    }
    channels
}

/// Which channel a cargo takes, by chunk.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<Doors>);

/// The channels that leave from a chunk or from its visits.
#[derive(Clone, Debug, Default)]
struct Doors {
    /// Activations and gradients.
    between: [Option<ChannelId>; 2],
    /// Of each visit: dispatch, combine and the gradients of both.
    visits: Vec<[Option<ChannelId>; 4]>,
}

impl Doors {
    /// Which door a cargo takes: the visit, if any, and the place there.
    fn door(cargo: Cargo) -> (usize, Option<usize>, usize) {
        match cargo {
            Cargo::Activations { chunk } => (chunk, None, 0),
            Cargo::Gradients { chunk } => (chunk, None, 1),
            Cargo::Dispatch { chunk, visit } => (chunk, Some(visit), 0),
            Cargo::Combine { chunk, visit } => (chunk, Some(visit), 1),
            Cargo::CombineGradients { chunk, visit } => (chunk, Some(visit), 2),
            Cargo::DispatchGradients { chunk, visit } => (chunk, Some(visit), 3),
        }
    }
}

impl Routes {
    /// Indexes channels by their cargo.
    pub fn new(channels: &[Channel]) -> Self {
        let mut all: Vec<Doors> = Vec::new();
        for (id, channel) in channels.iter().enumerate() {
            let (chunk, visit, place) = Doors::door(channel.cargo);
            all.resize(all.len().max(chunk + 1), Doors::default());
            let doors = &mut all[chunk];
            match visit {
                None => doors.between[place] = Some(id),
                Some(visit) => {
                    doors.visits.resize(doors.visits.len().max(visit + 1), [None; 4]);
                    doors.visits[visit][place] = Some(id);
                }
            }
        }
        Routes(all)
    }

    /// The channel of a cargo; none if it stays on its stage.
    pub fn get(&self, cargo: Cargo) -> Option<ChannelId> {
        let (chunk, visit, place) = Doors::door(cargo);
        let doors = self.0.get(chunk)?;
        match visit {
            None => doors.between[place],
            Some(visit) => doors.visits.get(visit)?[place],
        }
    }

    /// The channel that brings a chunk its input.
    pub fn input(&self, chunk: usize) -> Option<ChannelId> {
        self.get(Cargo::Activations { chunk: chunk.checked_sub(1)? })
    }

    /// The channel that brings a chunk the gradient of its output.
    pub fn output_gradient(&self, chunk: usize) -> Option<ChannelId> {
        self.get(Cargo::Gradients { chunk: chunk + 1 })
    }
}

#[cfg(test)]
mod tests;
