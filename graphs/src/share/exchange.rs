//! How many bytes the optimizer phase moves, by what they carry.

use ops::{DType, Rule, WeightSpec};
use serde::Serialize;

use super::{Reduction, Share, shares};
use crate::{
    model::{ModelGraph, Parameter},
    plan::{Plan, Side},
};

/// Bytes, or rows, that an actor sends or receives in the optimizer phase.
///
/// Of a parameter of `S` values with `h` holders, cut evenly by [`Stage1`](crate::spec::Zero),
/// with `v` bytes for a value that computes and `b` for an activation, all holders together send
///
/// ```text
///                  one lane each       several lanes                 Owners
/// gradients        4 S (h - 1)         4 S (h - 1) (1 + 1 / h)       4 S (h - 1), S more unless
///                                                                    the owner is the last holder
/// momentum         4 S (h - 1) / h     the same                      0
/// updates          b S (h - 1) / h     the same                      0
/// values           v S (h - 1)         the same                      v S (h - 1)
/// ```
///
/// where momentum and updates are those of matrices that Muon moves. Divided by `h`: a rank sends
/// `4 S (h - 1) / h` of gradients, a reduce-scatter, and `v S (h - 1) / h` of values, an
/// all-gather. Algorithm 1 of Moonlight (arXiv:2502.16982) sends the same, but for momentum,
/// which it gathers everywhere in BF16: `2 S (h - 1)`, and no updates. Here the owner alone gathers
/// it, in F32, because its norm is taken in F32 and the bits are to be those of a run that is not
/// sharded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Exchange {
    /// Sums of gradients on their way to the holders of slices.
    pub gradients: u64,
    /// Slices of momentum on their way to the holder that runs Newton-Schulz.
    pub momentum: u64,
    /// Rows that come back from it.
    pub updates: u64,
    /// New values.
    pub values: u64,
}

impl Exchange {
    /// Bytes of one row of a parameter; `by_muon` says whether Newton-Schulz works on it.
    pub fn of_row(parameter: &Parameter, precision: DType, by_muon: bool) -> Self {
        let columns = parameter.columns();
        let bytes = |format: DType| (columns * format.size()) as u64;
        let only = |is_there: bool, bytes| if is_there { bytes } else { 0 };
        Exchange {
            gradients: only(parameter.spec.rule != Rule::Balance, bytes(DType::F32)),
            momentum: only(by_muon, bytes(DType::F32)),
            updates: only(by_muon, bytes(precision)),
            values: bytes(parameter.format(precision)),
        }
    }

    /// Rows times the bytes of a row.
    pub fn times(self, row: Exchange) -> Self {
        Exchange {
            gradients: self.gradients * row.gradients,
            momentum: self.momentum * row.momentum,
            updates: self.updates * row.updates,
            values: self.values * row.values,
        }
    }

    /// Adds what others send or receive.
    pub fn add(&mut self, other: Exchange) {
        self.gradients += other.gradients;
        self.momentum += other.momentum;
        self.updates += other.updates;
        self.values += other.values;
    }

    /// Bytes of all kinds.
    pub fn total(self) -> u64 {
        self.gradients + self.momentum + self.updates + self.values
    }
}

impl Share {
    /// Rows that a holder sends.
    pub fn sent(&self, holder: usize) -> Exchange {
        let [own, all] = [self.slice(holder).len(), self.rows].map(|rows| rows as u64);
        let others = self.holders.len() as u64 - 1;
        let is_last = holder + 1 == self.holders.len();
        let is_owner = self.holders[holder] == self.owner;
        let gradients = match self.reduction {
            Reduction::Scatter => all - own,
            Reduction::Chain if is_last => all - own,
            Reduction::Chain => all,
        };
        let (momentum, updates) = if is_owner { (0, all - own) } else { (own, 0) };
        Exchange { gradients, momentum, updates, values: others * own }
    }

    /// Rows that a holder receives.
    pub fn received(&self, holder: usize) -> Exchange {
        let [own, all] = [self.slice(holder).len(), self.rows].map(|rows| rows as u64);
        let others = self.holders.len() as u64 - 1;
        let is_last = holder + 1 == self.holders.len();
        let is_owner = self.holders[holder] == self.owner;
        let before = if holder > 0 { all } else { 0 };
        let gradients = match self.reduction {
            Reduction::Scatter => others * own,
            Reduction::Chain if is_last => before,
            Reduction::Chain => before + own,
        };
        let (momentum, updates) = if is_owner { (all - own, 0) } else { (0, own) };
        Exchange { gradients, momentum, updates, values: all - own }
    }
}

/// Bytes that all actors of each stage and side together send in an optimizer phase.
///
/// `by_muon` says whether Newton-Schulz works on a parameter.
pub fn exchanged(
    plan: &Plan,
    graph: &ModelGraph,
    precision: DType,
    by_muon: impl Fn(&WeightSpec) -> bool,
) -> Vec<[Exchange; 2]> {
    let mut sums = vec![[Exchange::default(); 2]; plan.mesh.pp];
    for (parameter, share) in graph.parameters().iter().zip(shares(plan, graph)) {
        let row = Exchange::of_row(parameter, precision, by_muon(&parameter.spec));
        for (holder, address) in share.holders.iter().enumerate() {
            let side: Side = address.side;
            sums[address.stage][side as usize].add(share.sent(holder).times(row));
        }
    }
    sums
}
