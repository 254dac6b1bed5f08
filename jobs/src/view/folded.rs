//! The model graph folded by stage: what each chunk holds, layer by layer, and what leaves it.

use graphs::{ModelGraph, Plan, text};

use crate::view::scene::{Piece, Stage};

/// The stages of a plan.
pub fn stages(graph: &ModelGraph, plan: &Plan) -> Vec<Stage> {
    let routes = text::route(plan);
    let routes: Vec<&str> = routes.lines().map(str::trim).collect();
    let stage = |number: usize| {
        let chunks = plan.chunks.iter().enumerate().filter(|(_, chunk)| chunk.stage == number);
        let piece = |(chunk, it): (usize, &graphs::plan::Chunk)| Piece {
            chunk,
            layers: layers(graph, it.nodes.clone()),
        };
        let channels = plan.channels.iter().zip(&routes);
        let own = channels.filter(|(channel, _)| channel.from.0 == number);
        // A route begins with its number, which says nothing here.
        let words = own.map(|(_, line)| line.split_once("  ").map_or(*line, |(_, rest)| rest));
        Stage { chunks: chunks.map(piece).collect(), channels: words.map(String::from).collect() }
    };
    (0..plan.programs.len()).map(stage).collect()
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
