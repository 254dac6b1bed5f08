//! How many rows go to which expert group: assumed, bounded or measured.

use std::collections::BTreeMap;

use ops::Op;

use crate::{address::Address, memory::sizes::Sizes, plan::Side};

/// Where the rows go; routing is data, so a plan can only assume it.
#[derive(Clone, Copy, Debug)]
pub enum Loads<'a> {
    /// Every group gets the same share of each unit, the first groups one row more where it does
    /// not divide.
    Balanced,
    /// Every group gets all rows that can come to it: each token sends as many as it has experts,
    /// or as the group has. A bound for each group; not all can reach it at once.
    Worst,
    /// What a run has seen.
    Measured(&'a Rows),
}

/// Rows that came to expert groups in a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows(BTreeMap<(Address, usize, usize, usize), Vec<u64>>);

impl Rows {
    /// Notes the rows of each source rank that a group computes for a microbatch in a visit.
    pub fn insert(
        &mut self,
        group: Address,
        (chunk, visit, microbatch): (usize, usize, usize),
        by_source: Vec<u64>,
    ) {
        self.0.insert((group, chunk, visit, microbatch), by_source);
    }
}

/// The rows of one actor.
pub(super) struct Routed<'a> {
    me: Address,
    assumed: BTreeMap<(usize, usize), Vec<u64>>,
    measured: Option<&'a Rows>,
}

impl<'a> Routed<'a> {
    pub fn new(sizes: &Sizes<'_>, me: Address, loads: &Loads<'a>) -> Self {
        let mut assumed = BTreeMap::new();
        if me.side == Side::Experts {
            let chunks = sizes.plan.chunks.iter().enumerate();
            for (number, chunk) in chunks.filter(|(_, chunk)| chunk.stage == me.stage) {
                for visit in 0..chunk.visits.len() {
                    let rows = assume(sizes, me, loads, (number, visit));
                    assumed.insert((number, visit), vec![rows; sizes.plan.mesh.ep]);
                }
            }
        }
        let measured = match loads {
            Loads::Measured(rows) => Some(*rows),
            Loads::Balanced | Loads::Worst => None,
        };
        Routed { me, assumed, measured }
    }

    /// Rows of each source of a microbatch in a visit; a stage has one source, itself, whose rows
    /// are all there are.
    pub fn rows(&self, chunk: usize, visit: usize, microbatch: usize) -> &[u64] {
        match (self.me.side, self.measured) {
            (Side::Stage, _) => &[0],
            (Side::Experts, None) => self.assumed.get(&(chunk, visit)).map_or(&[], Vec::as_slice),
            (Side::Experts, Some(rows)) => {
                let key = (self.me, chunk, visit, microbatch);
                rows.0.get(&key).map_or(&[], Vec::as_slice)
            }
        }
    }

    /// The most rows of one microbatch in a visit, over all sources.
    pub fn most(&self, chunk: usize, visit: usize, microbatches: usize) -> u64 {
        let of = |microbatch| self.rows(chunk, visit, microbatch).iter().sum();
        (0..microbatches).map(of).max().unwrap_or(0)
    }
}

/// Rows of each source without a measurement.
fn assume(sizes: &Sizes<'_>, me: Address, loads: &Loads<'_>, at: (usize, usize)) -> u64 {
    let visit = &sizes.plan.chunks[at.0].visits[at.1];
    let (ep, dispatch) = (sizes.plan.mesh.ep, visit.inputs[0].0);
    let rows = sizes.rows(dispatch);
    let Op::Dispatch(op) = &sizes.graph.node(dispatch).op else { return 0 };
    let rows = match loads {
        Loads::Balanced => rows / ep + usize::from(me.rank < rows % ep),
        Loads::Worst => sizes.tokens * op.experts_per_token.min(visit.experts / ep),
        Loads::Measured(_) => 0,
    };
    rows as u64
}
