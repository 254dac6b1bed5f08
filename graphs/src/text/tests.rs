//! What each level looks like.

use super::*;
use crate::{
    PlanSpec,
    decoder::tests::nano,
    lower,
    mesh::Mesh,
    plan::Batch,
    spec::{Share, Stages},
};

fn lowered() -> (ModelGraph, Plan) {
    let decoder = crate::Decoder { layers: 2, q_rank: None, ..nano() };
    let graph = ModelGraph::new(&decoder.expand()).unwrap();
    let share = Share { layers: 1, with: vec![] };
    let stages = Stages::Explicit(vec![share.clone(), share]);
    let mesh = Mesh { pp: 2, ..Mesh::default() };
    let spec = PlanSpec { mesh, stages, ..PlanSpec::default() };
    let batch = Batch { sequences: 1, context: 16, microbatch: 1, lanes: Some(1) };
    let plan = lower(&graph, &spec, batch).unwrap();
    (graph, plan)
}

#[test]
fn the_model_is_a_line_a_node() {
    let (graph, _) = lowered();
    let text = model(&graph);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), graph.len());
    let columns: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!(
        columns,
        ["4", "model.layers.0.self_attn.split", "Split", "3", "[t,", "64]", "[t,", "16]"]
    );
    let columns: Vec<&str> = lines[7].split_whitespace().collect();
    assert_eq!(columns[2..6], ["MlaAttention", "2", "6", "4.1"]);
}

#[test]
fn places_channels_and_programs_are_told() {
    let (graph, plan) = lowered();
    let text = place(&graph, &plan);
    assert!(text.starts_with("chunk 0 on stage 0: model.embed_tokens .. "), "{text}");
    assert!(text.contains("\n  visit 0, 16 experts: model.layers.1.mlp.dispatch.0 "), "{text}");
    let text = route(&plan);
    assert!(text.starts_with("   0  stage 0 -> stage 1  activations 0  credits 2\n"), "{text}");
    assert!(text.contains("experts 1 -> stage 1  combine 1/0  credits 2\n"), "{text}");
    let text = programs(&plan);
    let first = "stage 0:\n  F 0.0 mb 0\n  send activations 0 mb 0\n  receive gradients 1 mb 0\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("experts 1:\n  receive dispatch 1/0 mb 0\n  F 1.0 mb 0\n"), "{text}");
}

#[test]
fn orders_read_back_and_idle_cells_are_skipped() {
    let (_, plan) = lowered();
    assert_eq!(read_orders(&orders(&plan.orders)).unwrap(), plan.orders);
    let idle = read_orders("0F0,,0B0,\n,1F0,1B0\n\n").unwrap();
    assert_eq!(orders(&idle), "0F0,0B0\n1F0,1B0\n");
    assert_eq!(read_orders("0F0,0X0").unwrap_err().0, "0X0");
}
