//! Which actors hold a parameter, and which rows of it each of them updates.
//!
//! Holders read a parameter and make gradients for it. The rows of its slice a holder alone keeps
//! the F32 master and the optimizer state of; it joins their gradients, updates them and sends the
//! new values round. Under [`Zero::Owners`] one holder's slice is the whole parameter and the
//! others' are empty; under [`Zero::Stage1`] of `h` holders, holder `j` has the rows
//! `n j / h .. n (j + 1) / h` of `n`. A router's bias stays whole: counts move it, which everybody
//! hears, so there is no gradient to scatter, and it is small.
//!
//! Newton-Schulz needs the whole matrix (the product of slices is no slice of the product). The
//! *owner* of a matrix gathers the direction, runs it once and sends every holder its rows back.
//! Moonlight (arXiv:2502.16982, section 2.3, algorithm 1) gathers at every holder instead and runs
//! it there, `h` times. That saves the way back, and costs `h` times the work; and it moves `h - 1`
//! directions of each matrix, where the owner gathers `(h - 1) / h` of one and sends as much back.
//! See [`Exchange`] for the bytes of both.

use std::{collections::BTreeMap, ops::Range};

use ops::{Rule, WeightSpec};

use crate::{
    address::Address,
    model::{ModelGraph, Parameter},
    plan::{Plan, Side},
    spec::Zero,
};

mod exchange;
mod hosted;

pub use self::{
    exchange::{Exchange, exchanged},
    hosted::{Hosted, hosted, kept_bytes},
};

/// The actors that share a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// All holders, replica-major, in the order of their lanes.
    pub holders: Vec<Address>,
    /// The holder that updates the whole parameter, or that runs Newton-Schulz if it is cut.
    pub owner: Address,
    /// Rows of the parameter: the extent of its first dim.
    pub rows: usize,
    /// Whether every holder has a slice of the rows; the owner has all of them if not.
    pub is_cut: bool,
    /// How the sums of the lanes come to the slices.
    pub reduction: Reduction,
}

/// How sums of gradients, one for each lane, become one sum at the holder of a slice.
///
/// Both add the lanes from the first to the last, so they give the same bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reduction {
    /// Every holder sends the slice of its one lane to the holder of the slice, which adds them
    /// once all are there: a reduce-scatter, of which a rank sends `(h - 1) / h` of a gradient.
    Scatter,
    /// The sum goes from holder to holder, each adding its lanes, and from the last one to the
    /// holder of the slice. With several lanes in a holder, those after the first holder could
    /// not be added beforehand, so the scatter would send each of them apart.
    Chain,
}

impl Share {
    /// Which of the holders an actor is; nothing if it is none.
    pub fn position(&self, actor: Address) -> Option<usize> {
        self.holders.iter().position(|holder| *holder == actor)
    }

    /// The rows that a holder updates.
    pub fn slice(&self, holder: usize) -> Range<usize> {
        let border = |holder: usize| self.rows * holder / self.holders.len();
        match (self.is_cut, self.holders[holder] == self.owner) {
            (true, _) => border(holder)..border(holder + 1),
            (false, true) => 0..self.rows,
            (false, false) => 0..0,
        }
    }

    /// The slices that are not empty, with their holders.
    pub fn slices(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let all = (0..self.holders.len()).map(|holder| (holder, self.slice(holder)));
        all.filter(|(_, rows)| !rows.is_empty())
    }
}

/// Finds holders, owner and slices of every parameter, owners balanced by the work of an update.
pub fn shares(plan: &Plan, graph: &ModelGraph) -> Vec<Share> {
    let holders = holders(plan, graph);
    let owners = owners(plan, graph, &holders);
    let parts = graph.parameters().iter().zip(holders).zip(owners);
    parts.map(|((parameter, holders), owner)| share(plan, parameter, holders, owner)).collect()
}

fn share(plan: &Plan, parameter: &Parameter, holders: Vec<Address>, owner: Address) -> Share {
    let is_cut = is_cut(plan, &parameter.spec);
    let lanes = owner.lanes(&plan.mesh, &plan.batch).len();
    let reduction = if is_cut && lanes == 1 { Reduction::Scatter } else { Reduction::Chain };
    Share { holders, owner, rows: parameter.spec.shape[0], is_cut, reduction }
}

/// Whether the holders of a parameter share its rows out.
fn is_cut(plan: &Plan, spec: &WeightSpec) -> bool {
    plan.zero == Zero::Stage1 && spec.rule != Rule::Balance
}

/// The owner of each parameter: the dearest goes to the holder that has least to do so far.
fn owners(plan: &Plan, graph: &ModelGraph, holders: &[Vec<Address>]) -> Vec<Address> {
    let mut by_cost: Vec<usize> = (0..holders.len()).collect();
    let cost = |p: usize| owner_flops(plan, &graph.parameters()[p].spec);
    by_cost.sort_by(|a, b| cost(*b).total_cmp(&cost(*a)).then(a.cmp(b)));
    let mut load: BTreeMap<Address, f64> = BTreeMap::new();
    let mut owners: Vec<Option<Address>> = vec![None; holders.len()];
    for parameter in by_cost {
        let busy = |a: &Address| load.get(a).copied().unwrap_or(0.0);
        let lightest = holders[parameter].iter().copied();
        let owner = lightest.min_by(|a, b| busy(a).total_cmp(&busy(b)).then(a.cmp(b)));
        let owner = owner.expect("every parameter lives on a stage");
        *load.entry(owner).or_default() += cost(parameter);
        owners[parameter] = Some(owner);
    }
    owners.into_iter().map(|owner| owner.expect("each parameter was visited")).collect()
}

fn holders(plan: &Plan, graph: &ModelGraph) -> Vec<Vec<Address>> {
    let mesh = &plan.mesh;
    let mut all = vec![Vec::new(); graph.parameters().len()];
    for chunk in &plan.chunks {
        let everywhere =
            |replica: usize, rank: usize, side| Address { replica, stage: chunk.stage, rank, side };
        for node in chunk.segments.iter().flatten() {
            for parameter in graph.node(*node).parameters.clone() {
                for replica in 0..mesh.dp {
                    let ranks = 0..mesh.ep;
                    all[parameter].extend(ranks.map(|r| everywhere(replica, r, Side::Stage)));
                }
            }
        }
        for visit in &chunk.visits {
            let local = visit.experts / mesh.ep;
            for (node, _) in &visit.nodes {
                for parameter in graph.node(*node).parameters.clone() {
                    let expert = graph.parameters()[parameter].expert.unwrap_or(0);
                    let group = expert / local;
                    let replicas = 0..mesh.dp;
                    all[parameter].extend(replicas.map(|r| everywhere(r, group, Side::Experts)));
                }
            }
        }
    }
    all
}

/// Rough work that an update leaves to the owner: five Newton-Schulz steps for Muon, a pass for
/// the rest, of which every holder does its slice if there are slices.
fn owner_flops(plan: &Plan, spec: &WeightSpec) -> f64 {
    let elements = spec.shape.iter().product::<usize>() as f64;
    match (spec.rule, spec.shape.as_slice()) {
        (Rule::Muon, [rows, columns]) => 20.0 * elements * (*rows).min(*columns) as f64,
        _ if is_cut(plan, spec) => 0.0,
        _ => 10.0 * elements,
    }
}

#[cfg(test)]
mod tests;
