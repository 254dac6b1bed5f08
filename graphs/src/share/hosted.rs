//! Which masters and optimizer states live on the host between updates.

use std::collections::{BTreeMap, BTreeSet};

use ops::{DType, optim::Optimizer};

use crate::{
    address::Address,
    model::{ModelGraph, Parameter},
    plan::Plan,
    share::shares,
};

/// Bytes of the masters, and of the states, of so many rows of a parameter.
pub fn kept_bytes(parameter: &Parameter, rows: usize, optimizer: &Optimizer) -> (u64, u64) {
    if rows == 0 {
        return (0, 0);
    }
    let mut shape = parameter.spec.shape.clone();
    shape[0] = rows;
    let states = optimizer.state_elements(parameter.spec.rule, &shape);
    let bytes = |elements: usize| (elements * DType::F32.size()) as u64;
    (bytes(rows * parameter.columns()), bytes(states))
}

/// Slices whose masters and states live on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Hosted {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Those of some parameters at some holders.
    Some(BTreeSet<(usize, Address)>),
}

impl Hosted {
    /// Whether the slice of a parameter at a holder lives on the host.
    pub fn contains(&self, parameter: usize, holder: Address) -> bool {
        match self {
            Hosted::Nothing => false,
            Hosted::Everything => true,
            Hosted::Some(slices) => slices.contains(&(parameter, holder)),
        }
    }
}

/// Finds the slices whose masters and states live on the host: of each actor, in the order of the
/// model, as many as its part of the bytes allows.
pub fn hosted(plan: &Plan, graph: &ModelGraph, optimizer: &Optimizer) -> Hosted {
    if plan.offload_states == 0.0 {
        return Hosted::Nothing;
    }
    if plan.offload_states == 1.0 {
        return Hosted::Everything;
    }
    let mut by_actor: BTreeMap<Address, Vec<(usize, u64)>> = BTreeMap::new();
    for (number, share) in shares(plan, graph).iter().enumerate() {
        for (holder, rows) in share.slices() {
            let (masters, states) = kept_bytes(&graph.parameters()[number], rows.len(), optimizer);
            let own = by_actor.entry(share.holders[holder]).or_default();
            own.push((number, masters + states));
        }
    }
    let mut hosted = BTreeSet::new();
    for (actor, slices) in by_actor {
        let all: u64 = slices.iter().map(|it| it.1).sum();
        let mut left = (all as f64 * plan.offload_states) as u64;
        for (number, bytes) in slices {
            if bytes <= left {
                left -= bytes;
                hosted.insert((number, actor));
            }
        }
    }
    Hosted::Some(hosted)
}
