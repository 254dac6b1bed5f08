//! Prints every level of a plan, the same text for the same plan, and reads orders back.

use std::fmt::Write;

use crate::model::{ModelGraph, Source};

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
