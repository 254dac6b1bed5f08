//! Whether a graph is a decoder of the family, so that it can be exported as one.

use ops::Op;

use crate::{
    decoder::Decoder,
    model::{ModelGraph, Node},
};

impl Decoder {
    /// Reads the numbers off a graph's nodes; none unless they stand for exactly this graph.
    ///
    /// The names of inner nodes without weights count too, since they name what is stored.
    pub fn recognise(graph: &ModelGraph) -> Option<Decoder> {
        let decoder = read(graph)?;
        decoder.check().ok()?;
        let expected = ModelGraph::new(&decoder.expand()).ok()?;
        let equal = expected.len() == graph.len() && expected.nodes().eq(graph.nodes());
        equal.then_some(decoder)
    }
}

/// Takes each field from the first node that knows it.
fn read(graph: &ModelGraph) -> Option<Decoder> {
    let Op::Embedding(ref embedding) = graph.node(0).op else { return None };
    let layers = graph.nodes().filter_map(|node| node.layer).max()? + 1;
    let attention = first(graph, |op| match op {
        Op::MlaAttention(op) => Some(op.clone()),
        _ => None,
    })?;
    let norm_eps = first(graph, |op| match op {
        Op::RmsNorm(op) => Some(op.eps),
        _ => None,
    })?;
    let router_at = graph.nodes().find(|node| matches!(node.op, Op::Router(_)));
    let router = router_at.and_then(|node| match &node.op {
        Op::Router(op) => Some(op.clone()),
        _ => None,
    });
    let width = |name: &str| {
        let node = graph.nodes().find(|node| node.name.ends_with(name));
        node.and_then(linear_output)
    };
    let expert_width = width(".mlp.experts.*.gate_proj").unwrap_or(0);
    let shared_width = width(".mlp.shared_experts.gate_proj").unwrap_or(0);
    Some(Decoder {
        layers,
        dense_layers: router_at.map_or(Some(layers), |node| node.layer)?,
        hidden: embedding.width,
        dense_width: width(".mlp.gate_proj").unwrap_or(0),
        vocab: embedding.vocab,
        heads: attention.heads,
        q_rank: width(".self_attn.q_a_proj"),
        kv_rank: width(".self_attn.kv_a_proj_with_mqa")?.checked_sub(attention.rope)?,
        nope: attention.nope,
        rope: attention.rope,
        value: attention.value,
        experts: router.as_ref().map_or(0, |router| router.experts),
        experts_per_token: router.as_ref().map_or(0, |router| router.experts_per_token),
        shared_experts: shared_width.checked_div(expert_width).unwrap_or(0),
        expert_width,
        groups: router.as_ref().map_or(1, |router| router.groups),
        groups_per_token: router.as_ref().map_or(1, |router| router.groups_per_token),
        scaling: router.as_ref().map_or(1.0, |router| router.scaling),
        rope_theta: attention.rope_theta,
        yarn: attention.yarn,
        norm_eps,
        init_std: embedding.init_std,
    })
}

/// What the first node that has it says.
fn first<T>(graph: &ModelGraph, of: impl Fn(&Op) -> Option<T>) -> Option<T> {
    graph.nodes().find_map(|node| of(&node.op))
}

fn linear_output(node: &Node) -> Option<usize> {
    match &node.op {
        Op::Linear(op) => Some(op.output),
        Op::GroupedLinear(op) => Some(op.output),
        _ => None,
    }
}
