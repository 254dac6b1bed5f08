//! Who is who: the compute actors of a plan and their numbers.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};

use crate::{
    mesh::Mesh,
    plan::{Batch, Side},
};

/// One compute actor: a stage or an expert group, of one replica and one expert rank.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Address {
    /// Copy of the model, along axis `dp`.
    pub replica: usize,
    /// Pipeline stage, along axis `pp`.
    pub stage: usize,
    /// Expert rank, along axis `ep`.
    pub rank: usize,
    /// Stage actor or expert-group actor.
    pub side: Side,
}

impl Address {
    /// Position among all compute actors of the mesh.
    pub fn index(self, mesh: &Mesh) -> usize {
        let rank = (self.replica * mesh.pp + self.stage) * mesh.ep + self.rank;
        2 * rank + self.side as usize
    }

    /// All compute actors of a mesh, in the order of [`Address::index`].
    pub fn all(mesh: &Mesh) -> Vec<Address> {
        let ranks = mesh.ranks();
        (0..2 * ranks)
            .map(|index| {
                let (rank, side) = (index / 2, [Side::Stage, Side::Experts][index % 2]);
                Address {
                    replica: rank / (mesh.pp * mesh.ep),
                    stage: rank / mesh.ep % mesh.pp,
                    rank: rank % mesh.ep,
                    side,
                }
            })
            .collect()
    }

    /// Lanes it sums weight gradients in: its own rank's, and as experts those of all ranks whose
    /// rows it computes; one if each holder has one.
    pub fn lanes(self, mesh: &Mesh, batch: &Batch) -> Range<usize> {
        let (at, many) = match self.side {
            Side::Stage => (self.data_rank(mesh), batch.own_lanes(mesh.data_ranks())),
            Side::Experts => (self.replica, batch.lanes.map_or(1, |lanes| lanes / mesh.dp)),
        };
        at * many..(at + 1) * many
    }

    /// The lane in which it sums the weight gradients of a unit.
    pub fn lane(self, mesh: &Mesh, batch: &Batch, unit: usize) -> usize {
        match (batch.lanes, self.side) {
            (Some(lanes), _) => unit % lanes,
            (None, Side::Stage) => self.data_rank(mesh),
            (None, Side::Experts) => self.replica,
        }
    }

    /// Position among the ranks that see different samples: `replica * ep + rank`.
    pub fn data_rank(self, mesh: &Mesh) -> usize {
        self.replica * mesh.ep + self.rank
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { replica, stage, rank, side } = self;
        let side = match side {
            Side::Stage => "stage",
            Side::Experts => "experts of stage",
        };
        write!(f, "{side} {stage}, expert rank {rank}, replica {replica}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbered_without_gaps() {
        let mesh = Mesh { pp: 3, vpp: 2, ep: 4, dp: 2 };
        for (index, address) in Address::all(&mesh).into_iter().enumerate() {
            assert_eq!(address.index(&mesh), index);
        }
    }
}
