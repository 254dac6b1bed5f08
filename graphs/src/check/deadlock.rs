//! The proof that a plan cannot hang.
//!
//! All instructions of all programs are the events of one graph. An event comes after
//! - *order*: the instruction before it on its actor;
//! - *data*: a receive after the send of its token;
//! - *credit*: the send of token `n + credits` after token `n` has been used, which is when the
//!   instruction after its receive is done.
//!
//! If the graph has no cycle, then at any time some event that has not happened has nothing left
//! to wait for, so the plan ends, however long things take.
//!
//! One replica and one expert rank stand for all. Every rank of a stage runs the same program, and
//! a token of an all-to-all is received when all ranks have sent it. So the graph of all ranks
//! maps onto this one, event by event and edge by edge, and a cycle in it would be one here.

use petgraph::{
    Direction,
    algo::toposort,
    graph::{DiGraph, NodeIndex},
};

use crate::plan::{Cargo, ChannelId, Instruction, Plan, Side};

/// An instruction of a plan: stage, side, position.
type Event = (usize, Side, usize);

/// Why one event comes after another.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Order,
    Data(ChannelId),
    Credit(ChannelId),
}

/// A ring of actors that would wait for each other for ever.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the plan would hang:\n{}", story.join("\n"))]
pub struct Deadlock {
    /// Who waits for whom and why, one line each, and last what would break the ring.
    pub story: Vec<String>,
    /// A channel that breaks the ring if it gets one more credit.
    pub credit: Option<ChannelId>,
}

/// Proves that the plan cannot hang.
///
/// # Errors
///
/// [`Deadlock`], with one ring.
pub fn deadlock(plan: &Plan) -> Result<(), Deadlock> {
    let graph = events(plan);
    match toposort(&graph, None) {
        Ok(_) => Ok(()),
        Err(_) => Err(tell(plan, &graph, &ring(&graph))),
    }
}

/// The event graph; nodes are in the order of stage, side, position.
fn events(plan: &Plan) -> DiGraph<Event, Cause> {
    let mut graph = DiGraph::new();
    let mut ends: Vec<Ends> = vec![Ends::default(); plan.channels.len()];
    for (stage, sides) in plan.programs.iter().enumerate() {
        for (side, program) in [Side::Stage, Side::Experts].into_iter().zip(sides) {
            let mut before: Option<(NodeIndex, Instruction)> = None;
            for (index, &instruction) in program.instructions.iter().enumerate() {
                let event = graph.add_node((stage, side, index));
                match instruction {
                    Instruction::Send { channel, microbatch } => {
                        ends[channel].sent.push((microbatch, event));
                    }
                    Instruction::Receive { channel, microbatch } => {
                        ends[channel].received.push((microbatch, event));
                    }
                    _ => {}
                }
                if let Some((last, instruction)) = before {
                    graph.add_edge(last, event, Cause::Order);
                    if let Instruction::Receive { channel, microbatch } = instruction {
                        ends[channel].used.push((microbatch, event));
                    }
                }
                before = Some((event, instruction));
            }
        }
    }
    for (channel, ends) in ends.iter().enumerate() {
        ends.connect(&mut graph, channel, plan.channels[channel].credits);
    }
    graph
}

/// Events of one channel, as (microbatch, event), in program order.
#[derive(Clone, Debug, Default)]
struct Ends {
    sent: Vec<(usize, NodeIndex)>,
    received: Vec<(usize, NodeIndex)>,
    used: Vec<(usize, NodeIndex)>,
}

impl Ends {
    fn connect(&self, graph: &mut DiGraph<Event, Cause>, channel: ChannelId, credits: usize) {
        let by_microbatch = |ends: &[(usize, NodeIndex)]| {
            ends.iter().copied().collect::<std::collections::BTreeMap<_, _>>()
        };
        let (received, used) = (by_microbatch(&self.received), by_microbatch(&self.used));
        for (token, (microbatch, sent)) in self.sent.iter().enumerate() {
            if let Some(&received) = received.get(microbatch) {
                graph.add_edge(*sent, received, Cause::Data(channel));
            }
            let later = token.checked_add(credits).and_then(|token| self.sent.get(token));
            if let (Some(&used), Some(&(_, later))) = (used.get(microbatch), later) {
                graph.add_edge(used, later, Cause::Credit(channel));
            }
        }
    }
}

/// A cycle of a graph that has one, each event after the next.
fn ring(graph: &DiGraph<Event, Cause>) -> Vec<NodeIndex> {
    let mut waiting: Vec<usize> = graph
        .node_indices()
        .map(|event| graph.edges_directed(event, Direction::Incoming).count())
        .collect();
    let mut ready: Vec<NodeIndex> =
        graph.node_indices().filter(|event| waiting[event.index()] == 0).collect();
    while let Some(event) = ready.pop() {
        for next in graph.neighbors(event) {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                ready.push(next);
            }
        }
    }
    let stuck = |event: &NodeIndex| waiting[event.index()] > 0;
    let mut seen = vec![usize::MAX; graph.node_count()];
    let (mut path, mut at) = (Vec::new(), graph.node_indices().find(stuck));
    while let Some(event) = at.filter(|event| seen[event.index()] == usize::MAX) {
        seen[event.index()] = path.len();
        path.push(event);
        at = graph.neighbors_directed(event, Direction::Incoming).find(stuck);
    }
    at.map_or(Vec::new(), |event| path.split_off(seen[event.index()]))
}

/// Tells a ring as a story and finds the credit that would break it.
fn tell(plan: &Plan, graph: &DiGraph<Event, Cause>, ring: &[NodeIndex]) -> Deadlock {
    let (mut story, mut credit) = (Vec::new(), None);
    for (position, &event) in ring.iter().enumerate() {
        let before = ring[(position + 1) % ring.len()];
        let mut causes = graph.edges_connecting(before, event).map(|edge| *edge.weight());
        let cause = causes.find(|cause| *cause != Cause::Order).unwrap_or(Cause::Order);
        match cause {
            Cause::Order => {}
            Cause::Data(channel) => story.push(data(plan, graph[event], channel)),
            Cause::Credit(channel) => {
                credit = credit.min(Some(channel)).or(Some(channel));
                story.push(starved(plan, graph[event], graph[before], channel));
            }
        }
    }
    story.push(match credit {
        Some(channel) => {
            let Cell { from, cargo, .. } = cell(plan, channel);
            format!("one more credit for {cargo} from {from} would break the ring")
        }
        None => "no credit can break the ring: the order of work itself waits for itself".into(),
    });
    Deadlock { story, credit }
}

fn data(plan: &Plan, event: Event, channel: ChannelId) -> String {
    let Cell { from, to, cargo } = cell(plan, channel);
    format!("{to} waits for {cargo} of microbatch {} from {from}", microbatch(plan, event))
}

fn starved(plan: &Plan, event: Event, before: Event, channel: ChannelId) -> String {
    let Cell { from, to, cargo } = cell(plan, channel);
    let (stage, side, index) = before;
    let receive = (stage, side, index.saturating_sub(1));
    let (late, used) = (microbatch(plan, event), microbatch(plan, receive));
    let credits = plan.channels[channel].credits;
    format!(
        "{from} may send {cargo} of microbatch {late} when {to} has used microbatch {used} \
         (credits: {credits})"
    )
}

/// The words for a channel.
struct Cell {
    from: String,
    to: String,
    cargo: String,
}

fn cell(plan: &Plan, channel: ChannelId) -> Cell {
    let channel = &plan.channels[channel];
    let actor = |(stage, side): (usize, Side)| match side {
        Side::Stage => format!("stage {stage}"),
        Side::Experts => format!("the experts of stage {stage}"),
    };
    let cargo = match channel.cargo {
        Cargo::Activations { chunk } => format!("the activations of chunk {chunk}"),
        Cargo::Gradients { chunk } => format!("the gradients of chunk {chunk}"),
        Cargo::Dispatch { chunk, visit } => format!("the rows of chunk {chunk} visit {visit}"),
        Cargo::Combine { chunk, visit } => format!("the results of chunk {chunk} visit {visit}"),
        Cargo::CombineGradients { chunk, visit } => {
            format!("the gradients of results of chunk {chunk} visit {visit}")
        }
        Cargo::DispatchGradients { chunk, visit } => {
            format!("the gradients of rows of chunk {chunk} visit {visit}")
        }
    };
    Cell { from: actor(channel.from), to: actor(channel.to), cargo }
}

fn microbatch(plan: &Plan, (stage, side, index): Event) -> usize {
    match plan.programs[stage][side as usize].instructions[index] {
        Instruction::Receive { microbatch, .. }
        | Instruction::Send { microbatch, .. }
        | Instruction::Forward { microbatch, .. }
        | Instruction::BackwardInput { microbatch, .. }
        | Instruction::BackwardWeight { microbatch, .. } => microbatch,
    }
}
