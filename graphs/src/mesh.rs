//! Ranks arranged along named axes.

use serde::{Deserialize, Serialize};

/// Degrees of the axes; their product, without `vpp`, is the number of ranks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mesh {
    /// Pipeline stages.
    pub pp: usize,
    /// Virtual stages: chunks that each stage holds.
    pub vpp: usize,
    /// Expert ranks: the routed experts of a layer are spread over this many groups.
    pub ep: usize,
    /// Replicas: copies of the whole model that see different samples.
    pub dp: usize,
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh { pp: 1, vpp: 1, ep: 1, dp: 1 }
    }
}

impl Mesh {
    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.pp * self.ep * self.dp
    }

    /// Ranks that see different samples: `dp * ep`.
    pub fn data_ranks(&self) -> usize {
        self.ep * self.dp
    }

    /// Number of chunks the model is cut into.
    pub fn chunks(&self) -> usize {
        self.pp * self.vpp
    }
}
