//! How a plan is asked for in a job: the mesh, the cut, the schedule.

use serde::{Deserialize, Serialize};

use crate::{
    mesh::Mesh,
    policy::{Offload, Policies, Recompute, Store},
    schedule::Schedule,
};

mod buffers;

pub use crate::spec::buffers::{Communicators, Credits};

/// A plan as a job writes it; [`crate::lower`] turns it into a [`crate::plan::Plan`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanSpec {
    /// Ranks along the axes.
    pub mesh: Mesh,
    /// Sequences of one unit, which passes the pipeline alone.
    pub microbatch: usize,
    /// Where the model is cut.
    pub stages: Stages,
    /// Order of work of each stage.
    #[serde(with = "written", skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// When weight gradients are computed; left out: as the schedule says.
    #[serde(with = "written", skip_serializing_if = "Option::is_none")]
    pub weight_grad: Option<WeightGrad>,
    /// What travels while something else is computed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overlap: Vec<Overlap>,
    /// What is computed again in the backward pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recompute: Vec<Recompute>,
    /// What is stored in fewer bits between the passes.
    #[serde(with = "written", skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// What goes to the host between the passes.
    #[serde(with = "written", skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
    /// Messages that each channel may hold.
    #[serde(skip_serializing_if = "is_default")]
    pub credits: Credits,
    /// Channels that share a communicator.
    #[serde(skip_serializing_if = "is_default")]
    pub communicators: Communicators,
    /// Who keeps masters and optimizer states of what several ranks hold.
    #[serde(skip_serializing_if = "is_default")]
    pub zero: Zero,
    /// Part of the masters and optimizer states that lives on the host, 0 to 1.
    #[serde(skip_serializing_if = "is_default")]
    pub offload_states: f64,
}

impl Default for PlanSpec {
    fn default() -> Self {
        PlanSpec {
            mesh: Mesh::default(),
            microbatch: 1,
            stages: Stages::default(),
            schedule: None,
            weight_grad: None,
            overlap: Vec::new(),
            recompute: Vec::new(),
            store: None,
            offload: None,
            credits: Credits::default(),
            communicators: Communicators::default(),
            zero: Zero::default(),
            offload_states: 0.0,
        }
    }
}

impl PlanSpec {
    /// The schedule asked for; left out, 1F1B, interleaved if stages hold several chunks.
    pub fn schedule(&self) -> Schedule {
        self.schedule.clone().unwrap_or(match self.mesh.vpp {
            1 => Schedule::OneFOneB,
            _ => Schedule::Interleaved1F1B(Default::default()),
        })
    }

    /// When weight gradients are computed: the plan's word, or else the schedule's.
    pub fn weight_grad(&self) -> WeightGrad {
        self.weight_grad.unwrap_or(match self.schedule() {
            Schedule::Interleaved1F1B(rule) if rule.split_backward => WeightGrad::Early,
            _ => WeightGrad::Joined,
        })
    }
}

impl PlanSpec {
    /// What is done with activations between the passes.
    pub fn policies(&self) -> Policies {
        let PlanSpec { recompute, store, offload, .. } = self.clone();
        Policies { recompute, store, offload }
    }

    /// Whether forward and backward passes are paired.
    pub fn pairs(&self) -> bool {
        self.overlap.contains(&Overlap::ExpertAllToAll)
    }

    /// Whether gradients leave as soon as they are complete.
    pub fn reduces_early(&self) -> bool {
        self.overlap.contains(&Overlap::GradReduce)
    }
}

/// What travels while something else is computed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Overlap {
    /// Rows to the experts and back, while another microbatch computes.
    ExpertAllToAll,
    /// Weight gradients to the holders of their slices, while other segments are computed.
    GradReduce,
}

/// Whether a field need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads and writes a field that is either there or left out, without `Some`.
mod written {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        T::deserialize(deserializer).map(Some)
    }

    pub fn serialize<S: Serializer, T: Serialize>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }
}

/// How masters and optimizer states are spread over the holders of a parameter: replicas, and
/// expert ranks for what is no expert's.
///
/// Both keep each value of them once (ZeRO, arXiv:1910.02054, stage 1) and give the same bits.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Zero {
    /// Whole parameters, each at one of its holders.
    #[default]
    Owners,
    /// A slice of the rows at every holder, as in Moonlight, arXiv:2502.16982, section 2.3.
    Stage1,
}

/// When the weight gradients of a microbatch are computed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum WeightGrad {
    /// With the input gradient, which is sent after both.
    Joined,
    /// Right after the input gradient has been sent, so that it travels meanwhile.
    Early,
    /// After so many more input gradients of the stage, the rest at the end.
    Late(usize),
}

/// Where the model is cut into chunks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Stages {
    /// Such that the dearest chunk is as cheap as can be.
    Balanced(Balanced),
    /// By hand, one entry for each chunk, in the order of the model.
    Explicit(Vec<Share>),
}

impl Default for Stages {
    fn default() -> Self {
        Stages::Balanced(Balanced::default())
    }
}

/// What a balanced cut keeps at the ends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Balanced {
    /// Parts that the first chunk keeps.
    pub first: Vec<Part>,
    /// Parts that the last chunk keeps.
    pub last: Vec<Part>,
}

impl Default for Balanced {
    fn default() -> Self {
        Balanced { first: vec![Part::Embed], last: vec![Part::Norm, Part::Head, Part::Loss] }
    }
}

/// What one chunk of an explicit cut holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Number of layers.
    pub layers: usize,
    /// Parts outside the layers; named nowhere: at the first and the last chunk.
    #[serde(default)]
    pub with: Vec<Part>,
}

/// A part of the model outside its layers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Part {
    /// What stands before the first layer: the embedding.
    Embed,
    /// What stands between the last layer and the head: the last norm.
    Norm,
    /// The head, which is one node with the loss.
    Head,
    /// The loss.
    Loss,
}
