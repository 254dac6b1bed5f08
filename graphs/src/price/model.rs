//! What a model needs to be computed at all, however it is computed: the measure of MFU.

use ops::Op;

use crate::{
    model::{ModelGraph, Source},
    plan::Batch,
};

/// Floating-point operations of one step over all ranks, without anything done twice.
///
/// ```text
/// sum over products:   6 * weights that a token meets * tokens
/// sum over attentions: 3 * s * heads * (nope + rope + value) * tokens
/// ```
///
/// Products are linear layers, the `k` experts that a token is sent to, routers and the head; the
/// embedding is looked up and norms count nothing. Attention is causal, so half of the `s` keys on
/// average; its backward pass counts twice its forward pass.
pub fn flops_of_step(graph: &ModelGraph, batch: Batch) -> f64 {
    let mut met = Vec::with_capacity(graph.len());
    let mut flops = 0.0;
    for node in graph.nodes() {
        // How often a token meets the node: once, or once for each of its experts.
        let times = match (&node.op, node.inputs.first()) {
            (Op::Dispatch(op), _) => op.experts_per_token as f64,
            (_, Some(&Source::Node { node: from, .. })) if node.on_experts() => met[from],
            _ => 1.0,
        };
        met.push(times);
        flops += times * of_token(&node.op, batch.context);
    }
    flops * batch.tokens() as f64
}

/// Operations of one token in one node, forward and backward.
fn of_token(op: &Op, context: usize) -> f64 {
    let product = |input: usize, output: usize| 6.0 * (input * output) as f64;
    match op {
        Op::Linear(op) => product(op.input, op.output),
        Op::GroupedLinear(op) => product(op.input, op.output),
        Op::Router(op) => product(op.width, op.experts),
        Op::CrossEntropy(op) => product(op.width, op.vocab),
        Op::MlaAttention(op) => 3.0 * (context * op.heads * (op.nope + op.rope + op.value)) as f64,
        _ => 0.0,
    }
}
