//! The DeepSeek-V3 and Kimi-K2 family in a few numbers, and the graph they stand for.
//!
//! DeepSeek-V3, arXiv:2412.19437, section 2.1; Kimi K2, arXiv:2507.20534, section 2.3. Names are
//! those of transformers' `deepseek_v3`.

use ops::{Operator, Rule, Yarn};
use serde::{Deserialize, Serialize};

use crate::source::{GraphSource, Item};

mod check;
mod expand;
mod recognise;

/// A decoder with latent attention and routed experts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Decoder {
    /// Layers in all.
    pub layers: usize,
    /// How many of the first layers have a dense feed-forward part instead of experts.
    pub dense_layers: usize,
    /// Width of a token between layers.
    pub hidden: usize,
    /// Inner width of the dense feed-forward part.
    pub dense_width: usize,
    /// Number of different tokens.
    pub vocab: usize,
    /// Attention heads.
    pub heads: usize,
    /// Rank of the queries; left out: one full matrix makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q_rank: Option<usize>,
    /// Rank that keys and values share.
    pub kv_rank: usize,
    /// Width of the part of a head without positions.
    pub nope: usize,
    /// Width of the rotated part of a head; the key's is shared by all heads.
    pub rope: usize,
    /// Width of a head's values.
    pub value: usize,
    /// Routed experts of a layer.
    pub experts: usize,
    /// Routed experts that compute a token.
    pub experts_per_token: usize,
    /// Experts that compute every token, joined into one of their summed width.
    #[serde(default)]
    pub shared_experts: usize,
    /// Inner width of an expert.
    pub expert_width: usize,
    /// Groups the routed experts are chosen from.
    #[serde(default = "one")]
    pub groups: usize,
    /// Groups that a token may choose from.
    #[serde(default = "one")]
    pub groups_per_token: usize,
    /// Factor of the routed experts' sum.
    pub scaling: f32,
    /// Base of the rotation's wavelengths.
    pub rope_theta: f64,
    /// Stretching of the rotation beyond the trained context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yarn: Option<Yarn>,
    /// Added to the mean square in the layers' norms and the last one.
    #[serde(default = "norm_eps")]
    pub norm_eps: f32,
    /// Standard deviation of all matrices before the first step.
    #[serde(default = "init_std")]
    pub init_std: f32,
}

fn one() -> usize {
    1
}

fn norm_eps() -> f32 {
    1e-6
}

fn init_std() -> f32 {
    0.02
}

impl Decoder {
    /// Number of parameters that a gradient trains, all but the router's bias, of a decoder whose
    /// fields have been [checked](Decoder::check).
    pub fn parameter_count(&self) -> usize {
        self.count(|op| elements(op.operator()))
    }

    /// Number of parameters that one token meets: of the routed experts only its own.
    pub fn active_parameter_count(&self) -> usize {
        self.count(|op| match op {
            ops::Op::GroupedLinear(op) => elements(&op.part(self.experts_per_token)),
            op => elements(op.operator()),
        })
    }

    fn count(&self, of: impl Fn(&ops::Op) -> usize) -> usize {
        let GraphSource { blocks, nodes, .. } = self.expand();
        let item = |item: &Item| match item {
            Item::Node(node) => of(&node.op),
            Item::Repeat(block, times) => {
                times * blocks[block].iter().map(|node| of(&node.op)).sum::<usize>()
            }
        };
        nodes.iter().map(item).sum()
    }
}

fn elements(op: &dyn Operator) -> usize {
    let trained = op.weights().into_iter().filter(|weight| weight.rule != Rule::Balance);
    trained.map(|weight| weight.shape.iter().product::<usize>()).sum()
}

#[cfg(test)]
pub(crate) mod tests;
