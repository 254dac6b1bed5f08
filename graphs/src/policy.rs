//! What is done with activations between the forward and the backward pass.
//!
//! Kimi K2, arXiv:2507.20534, section 2.4.3: some are computed again, some are stored in FP8, and
//! what is left goes to the host. Policies are data: passes write the instructions, and actors
//! obey.

use ops::Op;
use serde::{Deserialize, Serialize};

use crate::{
    edge::Class,
    error::PlanError,
    model::{ModelGraph, NodeId},
};

/// Policies of a plan; by default everything is kept as it was made.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Policies {
    /// Nodes that run again in the backward pass.
    pub recompute: Vec<Recompute>,
    /// What is stored in fewer bits.
    pub store: Option<Store>,
    /// What goes to the host meanwhile.
    pub offload: Option<Offload>,
}

/// Nodes whose outputs are dropped after the forward pass, and computed again when needed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Recompute {
    /// All norms.
    RmsNorm,
    /// The activation of dense layers, shared and routed experts.
    SwiGlu,
    /// The up-projections of latent attention: queries, keys and values.
    MlaUpProj,
    /// The last matrix of routed experts.
    MoeDownProj,
}

impl Recompute {
    /// All of them, in the order of the K2 report.
    pub const ALL: [Recompute; 4] =
        [Recompute::RmsNorm, Recompute::SwiGlu, Recompute::MlaUpProj, Recompute::MoeDownProj];

    /// The tensors that it computes again.
    pub fn makes(self) -> Stored {
        match self {
            Recompute::RmsNorm => Stored::NormOutput,
            Recompute::SwiGlu => Stored::SwiGluOutput,
            Recompute::MlaUpProj => Stored::AttentionInput,
            Recompute::MoeDownProj => Stored::MoeDownOutput,
        }
    }

    /// Whether a node of that kind, whose first output is of the class, is meant.
    fn means(self, op: &Op, class: Class) -> bool {
        match self {
            Recompute::RmsNorm => matches!(op, Op::RmsNorm(_)),
            Recompute::SwiGlu => matches!(op, Op::SwiGlu(_)),
            Recompute::MlaUpProj => matches!(op, Op::Linear(_)) && class == Class::AttentionInput,
            Recompute::MoeDownProj => {
                matches!(op, Op::GroupedLinear(_)) && class == Class::MoeDownOutput
            }
        }
    }
}

/// How tensors are stored.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Store {
    /// As it was made.
    Plain,
    /// E4M3 with one F32 scale for each tile; storage only, never computed with.
    Fp8(Fp8),
}

impl Store {
    /// What Kimi K2 stores: inputs of the routed up-projections and of all SwiGLUs.
    pub fn k2() -> Self {
        Store::Fp8(Fp8 { tensors: vec![Stored::MoeUpInput, Stored::SwiGluInput], tile: TILE })
    }
}

/// What is stored in FP8.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fp8 {
    /// Classes of tensors.
    pub tensors: Vec<Stored>,
    /// Rows and columns that share a scale: 1 and 128, as K2 has it.
    #[serde(default = "tile", skip_serializing_if = "is_usual")]
    pub tile: (usize, usize),
}

/// The only tile there is.
pub const TILE: (usize, usize) = (1, 128);

fn tile() -> (usize, usize) {
    TILE
}

fn is_usual(tile: &(usize, usize)) -> bool {
    *tile == TILE
}

/// Tensors that a policy names.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Stored {
    /// Rows sorted by expert, which the routed up-projections read.
    MoeUpInput,
    /// Gate and up of dense layers, shared and routed experts.
    SwiGluInput,
    /// What down-projections read.
    SwiGluOutput,
    /// What routed experts give, row by row.
    MoeDownOutput,
    /// Outputs of norms.
    NormOutput,
    /// Low-rank projections.
    Latent,
    /// Queries, keys and values.
    AttentionInput,
    /// What the heads of an attention give.
    AttentionOutput,
    /// The stream that runs through all layers.
    Residual,
}

impl Stored {
    /// All of them.
    pub const ALL: [Stored; 9] = [
        Stored::MoeUpInput,
        Stored::SwiGluInput,
        Stored::SwiGluOutput,
        Stored::MoeDownOutput,
        Stored::NormOutput,
        Stored::Latent,
        Stored::AttentionInput,
        Stored::AttentionOutput,
        Stored::Residual,
    ];

    /// The classes that it names.
    pub fn classes(self) -> &'static [Class] {
        match self {
            Stored::MoeUpInput => &[Class::MoeUpInput],
            Stored::SwiGluInput => &[Class::SwiGluInput, Class::MoeSwiGluInput],
            Stored::SwiGluOutput => &[Class::SwiGluOutput, Class::MoeDownInput],
            Stored::MoeDownOutput => &[Class::MoeDownOutput],
            Stored::NormOutput => &[Class::NormOutput],
            Stored::Latent => &[Class::Latent],
            Stored::AttentionInput => &[Class::AttentionInput],
            Stored::AttentionOutput => &[Class::AttentionOutput],
            Stored::Residual => &[Class::Residual],
        }
    }
}

/// What goes to the host between the passes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Offload {
    /// Nothing: what is kept stays on its device.
    Nothing,
    /// All that is kept for the backward pass.
    Activations(Activations),
}

/// How activations go to the host and come back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Activations {
    /// Where they go.
    #[serde(default)]
    pub to: Place,
    /// How many steps of a stage before its backward pass a microbatch is fetched.
    #[serde(default = "one")]
    pub prefetch: usize,
    /// Whether what is stored in FP8 goes too, or stays on the device.
    #[serde(default)]
    pub stored: bool,
}

impl Default for Activations {
    /// To the host, fetched a step ahead; what is stored in FP8 stays.
    fn default() -> Self {
        Activations { to: Place::Host, prefetch: one(), stored: false }
    }
}

fn one() -> usize {
    1
}

/// Where activations go.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Place {
    /// The memory of the host.
    #[default]
    Host,
}

impl Policies {
    /// Whether a node runs again in the backward pass.
    pub fn recomputes(&self, graph: &ModelGraph, node: NodeId) -> bool {
        let (op, class) = (&graph.node(node).op, || graph.class((node, 0)));
        self.recompute.iter().any(|it| it.means(op, class()))
    }

    /// Whether tensors of a class are stored in FP8.
    pub fn stores(&self, class: Class) -> bool {
        let Some(Store::Fp8(Fp8 { tensors, .. })) = &self.store else { return false };
        tensors.iter().any(|stored| stored.classes().contains(&class))
    }

    /// A tile that is not known, and what would be stored that is computed again.
    pub fn mistakes(&self) -> Vec<PlanError> {
        let Some(Store::Fp8(Fp8 { tensors, tile })) = &self.store else { return Vec::new() };
        let tile = (*tile != TILE).then_some(PlanError::Tile { got: *tile });
        let again = |&stored: &Stored| {
            let recompute = self.recompute.iter().copied().find(|it| it.makes() == stored)?;
            Some(PlanError::Twice { stored, recompute })
        };
        tile.into_iter().chain(tensors.iter().filter_map(again)).collect()
    }

    /// Whether everything is kept as it was made.
    pub fn stores_nothing(&self) -> bool {
        !matches!(self.store, Some(Store::Fp8(_)))
    }

    /// How activations go to the host, if they do.
    pub fn offloads(&self) -> Option<Activations> {
        match self.offload {
            Some(Offload::Activations(how)) => Some(how),
            Some(Offload::Nothing) | None => None,
        }
    }
}
