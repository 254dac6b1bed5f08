//! The model graph folded by stage: what each chunk holds, layer by layer, and what leaves it.

use std::collections::BTreeMap;

use graphs::{ModelGraph, Plan, plan::Side, simulate::message_task};

use crate::view::{
    marks::words,
    scene::{Piece, Stage},
};

/// The stages of a plan.
pub fn stages(graph: &ModelGraph, plan: &Plan) -> Vec<Stage> {
    let stage = |number: usize| {
        let chunks = plan.chunks.iter().enumerate().filter(|(_, chunk)| chunk.stage == number);
        let piece = |(chunk, it): (usize, &graphs::plan::Chunk)| Piece {
            chunk,
            layers: layers(graph, it.nodes.clone()),
        };
        Stage { chunks: chunks.map(piece).collect(), channels: channels(plan, number) }
    };
    (0..plan.programs.len()).map(stage).collect()
}

/// What leaves a stage, joined by receiver and kind: how many channels, with how many credits.
fn channels(plan: &Plan, stage: usize) -> Vec<String> {
    let mut joined: BTreeMap<_, (usize, usize, usize)> = BTreeMap::new();
    for channel in plan.channels.iter().filter(|channel| channel.from.0 == stage) {
        let kind = message_task(channel.cargo, 0).kind;
        let credits = channel.credits;
        let it = joined.entry((kind, channel.from, channel.to)).or_insert((0, credits, credits));
        *it = (it.0 + 1, it.1.min(credits), it.2.max(credits));
    }
    let line = |((kind, _, to), (count, least, most)): (_, (usize, usize, usize))| {
        let (to, side): (usize, Side) = to;
        let to = match side {
            Side::Stage => format!("stage {to}"),
            Side::Experts => format!("the experts of stage {to}"),
        };
        let credits = if least == most { format!("{least}") } else { format!("{least} to {most}") };
        let channels = if count == 1 { "channel" } else { "channels" };
        format!("{} → {to}: {count} {channels}, credits {credits}", words(kind))
    };
    joined.into_iter().map(line).collect()
}

/// Nodes in a row that are of one layer, or that stand alone: name and operators.
fn layers(graph: &ModelGraph, nodes: std::ops::Range<usize>) -> Vec<(String, Vec<String>)> {
    let mut layers: Vec<(String, Vec<String>)> = Vec::new();
    for id in nodes {
        let node = graph.node(id);
        let name = layer(&node.name);
        let op = node.op.name().to_string();
        match layers.last_mut() {
            Some((last, ops)) if *last == name => ops.push(op),
            _ => layers.push((name, vec![op])),
        }
    }
    layers
}

/// `model.layers.3.self_attn` is of `layers.3`; what has no layer keeps its name.
fn layer(name: &str) -> String {
    match name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()) {
        Some(number) => format!("layer {number}"),
        None => name.to_string(),
    }
}
