//! Classes of tensors: what memory is counted by, and what policies for activations name.
//!
//! A class says what a tensor is in the model, whoever holds it: an edge has one class from the
//! moment it is made until its last holder lets it go.

use ops::{Kind, Op, Spec};
use serde::Serialize;

/// What a tensor that lives during a step is.
///
/// The names follow the groups that K2 recomputes, stores in FP8 or offloads (K2 report,
/// arXiv:2507.20534, section 2.4.3).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Class {
    /// The stream that runs through all layers: outputs of the embedding and of sums.
    Residual,
    /// Outputs of norms, the low-rank ones included.
    NormOutput,
    /// Low-rank projections before their norm.
    Latent,
    /// Queries, keys and values: outputs of the up-projections of latent attention.
    AttentionInput,
    /// What the heads of an attention give.
    AttentionOutput,
    /// Gate and up of dense layers and shared experts.
    SwiGluInput,
    /// What their down-projections read.
    SwiGluOutput,
    /// Choices, shares and counts of the router.
    Routing,
    /// Rows sorted by expert: what the routed up-projections read.
    MoeUpInput,
    /// Gate and up of routed experts.
    MoeSwiGluInput,
    /// What the routed down-projections read.
    MoeDownInput,
    /// What the routed experts give, row by row.
    MoeDownOutput,
    /// The same by the router's shares, on their way back to their tokens.
    MoeWeighed,
    /// What attention or feed-forward adds to the residual stream.
    BranchOutput,
    /// What the loss keeps of the logits: their gradient if the vocabulary is one chunk, or else
    /// one number for each token.
    Logits,
    /// Small figures that operators keep beside their edges: inverse deviations, sums of
    /// exponentials, chosen scores.
    Statistics,
    /// Edges of a graph that is no decoder.
    Other,
    /// Gradients of activations under way, and those put off until `W`.
    ActivationGradients,
    /// Sums of weight gradients, one for each lane.
    WeightGradients,
}

impl Class {
    /// Number of classes.
    pub const COUNT: usize = Class::ALL.len();

    /// All classes; the position of each is its number.
    pub const ALL: [Class; 19] = [
        Class::Residual,
        Class::NormOutput,
        Class::Latent,
        Class::AttentionInput,
        Class::AttentionOutput,
        Class::SwiGluInput,
        Class::SwiGluOutput,
        Class::Routing,
        Class::MoeUpInput,
        Class::MoeSwiGluInput,
        Class::MoeDownInput,
        Class::MoeDownOutput,
        Class::MoeWeighed,
        Class::BranchOutput,
        Class::Logits,
        Class::Statistics,
        Class::Other,
        Class::ActivationGradients,
        Class::WeightGradients,
    ];

    /// The name as reports write it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The class of an output of `op`, given the operators that read it.
    pub fn of_edge(op: &Op, spec: &Spec, readers: &[&Op]) -> Self {
        let read_by = |is: fn(&Op) -> bool| readers.iter().any(|reader| is(reader));
        let swiglu = read_by(|op| matches!(op, Op::SwiGlu(_)));
        let rows = spec.dims.first() == Some(&ops::Dim::Rows);
        match op {
            _ if spec.kind != Kind::Activation => Class::Routing,
            Op::Embedding(_) | Op::Add(_) => Class::Residual,
            Op::RmsNorm(_) => Class::NormOutput,
            Op::MlaAttention(_) => Class::AttentionOutput,
            Op::SwiGlu(_) if rows => Class::MoeDownInput,
            Op::SwiGlu(_) => Class::SwiGluOutput,
            Op::Dispatch(_) => Class::MoeUpInput,
            Op::GroupedLinear(_) if swiglu => Class::MoeSwiGluInput,
            Op::GroupedLinear(_) => Class::MoeDownOutput,
            Op::Weigh(_) => Class::MoeWeighed,
            Op::Combine(_) => Class::BranchOutput,
            Op::CrossEntropy(_) => Class::Logits,
            Op::Linear(_) | Op::Split(_) | Op::Router(_) => match () {
                _ if read_by(|op| matches!(op, Op::MlaAttention(_))) => Class::AttentionInput,
                _ if swiglu => Class::SwiGluInput,
                _ if read_by(|op| matches!(op, Op::RmsNorm(_) | Op::Split(_))) => Class::Latent,
                _ if read_by(|op| matches!(op, Op::Add(_))) => Class::BranchOutput,
                _ => Class::Other,
            },
        }
    }

    /// The class of what `op` keeps beside its edges.
    pub fn of_kept(op: &Op) -> Self {
        match op {
            Op::CrossEntropy(_) => Class::Logits,
            _ => Class::Statistics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelGraph, decoder::tests::nano};

    #[test]
    fn every_class_has_its_number() {
        assert!(Class::ALL.iter().enumerate().all(|(number, class)| *class as usize == number));
    }

    #[test]
    fn every_edge_of_a_decoder_has_a_class_of_its_own_kind() {
        let graph = ModelGraph::new(&nano().expand()).unwrap();
        let class = |name: &str, port| {
            let node = graph.nodes().position(|node| node.name == name).expect(name);
            graph.class((node, port))
        };
        let layer = "model.layers.1.";
        for (name, port, expected) in [
            ("self_attn.kv_a_proj_with_mqa", 0, Class::Latent),
            ("self_attn.split", 0, Class::Latent),
            ("self_attn.split", 1, Class::AttentionInput),
            ("self_attn.kv_b_proj", 0, Class::AttentionInput),
            ("self_attn.o_proj", 0, Class::BranchOutput),
            ("mlp.gate", 1, Class::Routing),
            ("mlp.dispatch", 0, Class::MoeUpInput),
            ("mlp.dispatch", 1, Class::Routing),
            ("mlp.experts.*.up_proj", 0, Class::MoeSwiGluInput),
            ("mlp.experts.*.down_proj", 0, Class::MoeDownOutput),
            ("mlp.combine", 0, Class::BranchOutput),
            ("mlp.add", 0, Class::Residual),
        ] {
            assert_eq!(class(&format!("{layer}{name}"), port), expected, "{name}");
        }
        let ports = (0..graph.len())
            .flat_map(|node| (0..graph.node(node).outputs.len()).map(move |port| (node, port)));
        assert!(ports.into_iter().all(|port| graph.class(port) != Class::Other));
    }
}
