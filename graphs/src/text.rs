//! Prints every level of a plan, the same text for the same plan, and reads orders back.

use std::fmt::Write;

use crate::{
    action::{Action, ActionError},
    model::{ModelGraph, Port, Source},
    plan::{Cargo, Channel, Instruction, Plan, Side},
};

/// Prints a model: number, name, operator, sources and shapes of each node.
pub fn model(graph: &ModelGraph) -> String {
    let width = graph.nodes().map(|node| node.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (id, node) in graph.nodes().enumerate() {
        let from: Vec<String> = node.inputs.iter().map(|&source| read(source)).collect();
        let made: Vec<String> = node.outputs.iter().map(ToString::to_string).collect();
        let op = node.op.name();
        let (from, made) = (from.join(" "), made.join(" "));
        let line = format!("{id:>4}  {:width$}  {op:13}  {from:14}  {made}", node.name);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn read(source: Source) -> String {
    match source {
        Source::Tokens => "tokens".into(),
        Source::Targets => "targets".into(),
        Source::Node { node, port: 0 } => node.to_string(),
        Source::Node { node, port } => format!("{node}.{port}"),
    }
}

/// Prints where the model is cut: stage, nodes and visits of each chunk.
pub fn place(graph: &ModelGraph, plan: &Plan) -> String {
    let mut text = String::new();
    for (number, chunk) in plan.chunks.iter().enumerate() {
        let name = |id: usize| graph.node(id).name.as_str();
        let (first, last) = (name(chunk.nodes.start), name(chunk.nodes.end - 1));
        let _ = writeln!(text, "chunk {number} on stage {}: {first} .. {last}", chunk.stage);
        for (visit, it) in chunk.visits.iter().enumerate() {
            let (sent, back) = (ports(graph, &it.inputs), ports(graph, &it.outputs));
            let _ = writeln!(text, "  visit {visit}, {} experts: {sent} -> {back}", it.experts);
        }
    }
    text
}

fn ports(graph: &ModelGraph, ports: &[Port]) -> String {
    let name = |&(node, port): &Port| format!("{}.{port}", graph.node(node).name);
    ports.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Prints the channels: ends, cargo, credits.
pub fn route(plan: &Plan) -> String {
    let mut text = String::new();
    for (id, channel) in plan.channels.iter().enumerate() {
        let (words, credits) = (self::channel(channel), channel.credits);
        let _ = writeln!(text, "{id:>4}  {words}  credits {credits}");
    }
    text
}

/// Prints the ends and the cargo of a channel.
pub fn channel(channel: &Channel) -> String {
    let (from, to, cargo) = (actor(channel.from), actor(channel.to), cargo(channel.cargo));
    format!("{from} -> {to}  {cargo}")
}

/// Prints an actor: a stage, or the experts beside it.
pub fn actor((stage, side): (usize, Side)) -> String {
    match side {
        Side::Stage => format!("stage {stage}"),
        Side::Experts => format!("experts {stage}"),
    }
}

fn cargo(cargo: Cargo) -> String {
    match cargo {
        Cargo::Activations { chunk } => format!("activations {chunk}"),
        Cargo::Gradients { chunk } => format!("gradients {chunk}"),
        Cargo::Dispatch { chunk, visit } => format!("dispatch {chunk}/{visit}"),
        Cargo::Combine { chunk, visit } => format!("combine {chunk}/{visit}"),
        Cargo::CombineGradients { chunk, visit } => format!("combine-gradients {chunk}/{visit}"),
        Cargo::DispatchGradients { chunk, visit } => format!("dispatch-gradients {chunk}/{visit}"),
    }
}

/// Prints orders as PyTorch does: a line for each stage, cells between commas.
pub fn orders(orders: &[Vec<Action>]) -> String {
    let row = |order: &Vec<Action>| {
        let cells: Vec<String> = order.iter().map(ToString::to_string).collect();
        cells.join(",") + "\n"
    };
    orders.iter().map(row).collect()
}

/// Reads orders; empty cells, which other programs write for idle steps, are skipped.
///
/// # Errors
///
/// The first cell that is no action.
pub fn read_orders(text: &str) -> Result<Vec<Vec<Action>>, ActionError> {
    let cells = |line: &str| {
        let cells = line.split(',').map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::parse).collect()
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(cells).collect()
}

/// Prints the programs of all actors, an instruction a line.
pub fn programs(plan: &Plan) -> String {
    let mut text = String::new();
    for (stage, sides) in plan.programs.iter().enumerate() {
        for (side, program) in [Side::Stage, Side::Experts].into_iter().zip(sides) {
            if program.instructions.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{}:", actor((stage, side)));
            for &it in &program.instructions {
                let _ = writeln!(text, "  {}", instruction(plan, it));
            }
        }
    }
    text
}

/// Prints one instruction: `F 2.0 mb 3` computes segment 0 of chunk 2 for microbatch 3.
pub fn instruction(plan: &Plan, instruction: Instruction) -> String {
    let carried = |channel: usize| match plan.channels.get(channel) {
        Some(channel) => cargo(channel.cargo),
        None => format!("channel {channel}"),
    };
    match instruction {
        Instruction::Receive { channel, microbatch } => {
            format!("receive {} mb {microbatch}", carried(channel))
        }
        Instruction::Send { channel, microbatch } => {
            format!("send {} mb {microbatch}", carried(channel))
        }
        Instruction::Forward { chunk, segment, microbatch } => {
            format!("F {chunk}.{segment} mb {microbatch}")
        }
        Instruction::Restore { chunk, segment, microbatch } => {
            format!("restore {chunk}.{segment} mb {microbatch}")
        }
        Instruction::Copy { step, chunk, segment, microbatch } => {
            let step = format!("{step:?}").to_lowercase();
            format!("{step} {chunk}.{segment} mb {microbatch}")
        }
        Instruction::BackwardInput { chunk, segment, microbatch } => {
            format!("I {chunk}.{segment} mb {microbatch}")
        }
        Instruction::BackwardWeight { chunk, segment, microbatch } => {
            format!("W {chunk}.{segment} mb {microbatch}")
        }
        Instruction::Reduce { chunk, segment } => format!("reduce {chunk}.{segment}"),
    }
}

#[cfg(test)]
mod tests;
