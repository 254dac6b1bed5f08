//! The graph that a decoder's few numbers stand for.

use ops::{
    Add, Combine, CrossEntropy, Dispatch, Embedding, GroupedLinear, Linear, MlaAttention, Op,
    RmsNorm, Router, Split, SwiGlu, Weigh,
};

use crate::{
    decoder::Decoder,
    source::{GraphSource, Input, Item, NodeSource},
};

/// Rows of logits the head holds at a time.
const HEAD_CHUNK: usize = 4096;

/// Added to the mean square in the norms between low-rank projections: transformers leaves them
/// at their default, whatever the model's own `rms_norm_eps` is.
pub(super) const LOW_RANK_EPS: f32 = 1e-6;

impl Decoder {
    /// Writes the model out, node by node.
    pub fn expand(&self) -> GraphSource {
        let mut nodes = vec![Item::Node(self.embedding())];
        let mut blocks = std::collections::BTreeMap::new();
        let moe_layers = self.layers.saturating_sub(self.dense_layers);
        for (name, times) in [("dense", self.dense_layers), ("moe", moe_layers)] {
            if times > 0 {
                let feed_forward = if name == "dense" { self.dense() } else { self.moe() };
                blocks.insert(name.to_string(), [self.attention(), feed_forward].concat());
                nodes.push(Item::Repeat(name.to_string(), times));
            }
        }
        nodes.push(Item::Node(node("model.norm", self.norm(), &[])));
        nodes.push(Item::Node(self.head()));
        GraphSource { input: Input::default(), blocks, nodes }
    }

    fn embedding(&self) -> NodeSource {
        let Decoder { vocab, hidden: width, init_std, .. } = *self;
        node("model.embed_tokens", Op::Embedding(Embedding { vocab, width, init_std }), &["tokens"])
    }

    fn head(&self) -> NodeSource {
        let Decoder { vocab, hidden: width, init_std, .. } = *self;
        let op = CrossEntropy { width, vocab, chunk: HEAD_CHUNK, init_std };
        node("lm_head", Op::CrossEntropy(op), &["model.norm", "targets"])
    }

    fn norm(&self) -> Op {
        Op::RmsNorm(RmsNorm { width: self.hidden, eps: self.norm_eps })
    }

    fn linear(&self, input: usize, output: usize) -> Op {
        Op::Linear(Linear { input, output, init_std: self.init_std })
    }

    /// Latent attention and its residual; DeepSeek-V3, section 2.1.1.
    fn attention(&self) -> Vec<NodeSource> {
        let low = |width| Op::RmsNorm(RmsNorm { width, eps: LOW_RANK_EPS });
        let queries = self.heads * (self.nope + self.rope);
        let mut nodes = vec![node("input_layernorm", self.norm(), &["in"])];
        let query = match self.q_rank {
            Some(rank) => {
                let down = self.linear(self.hidden, rank);
                nodes.push(node("self_attn.q_a_proj", down, &["input_layernorm"]));
                nodes.push(node("self_attn.q_a_layernorm", low(rank), &[]));
                nodes.push(node("self_attn.q_b_proj", self.linear(rank, queries), &[]));
                "self_attn.q_b_proj"
            }
            None => {
                let full = self.linear(self.hidden, queries);
                nodes.push(node("self_attn.q_proj", full, &["input_layernorm"]));
                "self_attn.q_proj"
            }
        };
        let shared = self.linear(self.hidden, self.kv_rank + self.rope);
        let split = Op::Split(Split { widths: vec![self.kv_rank, self.rope] });
        let keys = self.linear(self.kv_rank, self.heads * (self.nope + self.value));
        let out = self.linear(self.heads * self.value, self.hidden);
        let sources = [query, "self_attn.kv_b_proj", "self_attn.split.1"];
        nodes.extend([
            node("self_attn.kv_a_proj_with_mqa", shared, &["input_layernorm"]),
            node("self_attn.split", split, &[]),
            node("self_attn.kv_a_layernorm", low(self.kv_rank), &["self_attn.split.0"]),
            node("self_attn.kv_b_proj", keys, &[]),
            node("self_attn.attention", self.core(), &sources),
            node("self_attn.o_proj", out, &[]),
            node("self_attn.add", self.add(), &["in", "self_attn.o_proj"]),
            node("post_attention_layernorm", self.norm(), &[]),
        ]);
        nodes
    }

    fn core(&self) -> Op {
        let Decoder { heads, nope, rope, value, rope_theta, .. } = *self;
        let yarn = self.yarn.clone();
        Op::MlaAttention(MlaAttention { heads, nope, rope, value, rope_theta, yarn })
    }

    fn add(&self) -> Op {
        Op::Add(Add { width: self.hidden })
    }

    /// A feed-forward part of the given inner width that reads the second norm.
    fn feed_forward(&self, prefix: &str, width: usize) -> Vec<NodeSource> {
        let name = |part: &str| format!("{prefix}.{part}");
        let up = || self.linear(self.hidden, width);
        let norm = "post_attention_layernorm";
        let (gate, act) = (name("gate_proj"), Op::SwiGlu(SwiGlu { width }));
        vec![
            node(&gate, up(), &[norm]),
            node(&name("up_proj"), up(), &[norm]),
            node(&name("act"), act, &[&gate, &name("up_proj")]),
            node(&name("down_proj"), self.linear(width, self.hidden), &[]),
        ]
    }

    fn dense(&self) -> Vec<NodeSource> {
        let mut nodes = self.feed_forward("mlp", self.dense_width);
        nodes.push(node("mlp.add", self.add(), &["self_attn.add", "mlp.down_proj"]));
        nodes
    }

    /// Router, routed and shared experts; DeepSeek-V3, section 2.1.2.
    fn moe(&self) -> Vec<NodeSource> {
        let mut nodes = self.routed();
        let mut sum = vec!["self_attn.add", "mlp.combine"];
        if self.shared_experts > 0 {
            let width = self.expert_width * self.shared_experts;
            nodes.extend(self.feed_forward("mlp.shared_experts", width));
            sum.push("mlp.shared_experts.down_proj");
        }
        nodes.push(node("mlp.add", self.add(), &sum));
        nodes
    }

    fn routed(&self) -> Vec<NodeSource> {
        let Decoder { hidden: width, experts, experts_per_token, .. } = *self;
        let dispatch = Op::Dispatch(Dispatch { width, experts, experts_per_token });
        let combine = Op::Combine(Combine { width, experts, experts_per_token });
        let (gate, up, down) =
            ("mlp.experts.*.gate_proj", "mlp.experts.*.up_proj", "mlp.experts.*.down_proj");
        let (norm, rows) = ("post_attention_layernorm", ["mlp.dispatch.0", "mlp.dispatch.1"]);
        let act = Op::SwiGlu(SwiGlu { width: self.expert_width });
        vec![
            node("mlp.gate", self.router(), &[norm]),
            node("mlp.dispatch", dispatch, &[norm, "mlp.gate.0", "mlp.gate.1"]),
            node(gate, self.grouped(width, self.expert_width), &rows),
            node(up, self.grouped(width, self.expert_width), &rows),
            node("mlp.experts.act", act, &[gate, up]),
            node(down, self.grouped(self.expert_width, width), &["mlp.experts.act", rows[1]]),
            node("mlp.experts.weigh", Op::Weigh(Weigh { width }), &[down, "mlp.dispatch.2"]),
            node("mlp.combine", combine, &["mlp.experts.weigh", "mlp.gate.0"]),
        ]
    }

    fn router(&self) -> Op {
        let Decoder { hidden: width, experts, experts_per_token, groups, .. } = *self;
        let Decoder { groups_per_token, scaling, init_std, .. } = *self;
        Op::Router(Router {
            width,
            experts,
            experts_per_token,
            groups,
            groups_per_token,
            scaling,
            init_std,
        })
    }

    fn grouped(&self, input: usize, output: usize) -> Op {
        let Decoder { experts, init_std, .. } = *self;
        Op::GroupedLinear(GroupedLinear { experts, input, output, init_std })
    }
}

fn node(name: &str, op: Op, from: &[&str]) -> NodeSource {
    NodeSource::new(name, op, from)
}
