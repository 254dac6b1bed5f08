//! Which actors hold a parameter, and which one of them owns it.
//!
//! Holders read a parameter and make gradients for it. Its owner alone keeps the master value and
//! the optimizer state, joins the gradients, updates, and sends the new value round. Owning whole
//! matrices keeps Newton-Schulz local and the states sharded (Moonlight, arXiv:2502.16982,
//! section 2.3, shards by rows instead; a whole matrix needs no gather).

use std::collections::BTreeMap;

use ops::Rule;

use crate::{
    address::Address,
    model::ModelGraph,
    plan::{Plan, Side},
};

/// The actors that share a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// All holders, replica-major; the owner is one of them.
    pub holders: Vec<Address>,
    /// The holder that updates it.
    pub owner: Address,
}

/// Finds holders and owner of every parameter, owners balanced by the work of an update.
pub fn shares(plan: &Plan, graph: &ModelGraph) -> Vec<Share> {
    let holders: Vec<Vec<Address>> = holders(plan, graph);
    let mut by_cost: Vec<usize> = (0..holders.len()).collect();
    let cost = |p: usize| update_flops(&graph.parameters()[p].spec);
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
    let owners = owners.into_iter().map(|owner| owner.expect("each parameter was visited"));
    holders.into_iter().zip(owners).map(|(holders, owner)| Share { holders, owner }).collect()
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

/// Rough work of one update: five Newton-Schulz steps for Muon, a pass for the rest.
fn update_flops(spec: &ops::WeightSpec) -> f64 {
    let elements = spec.shape.iter().product::<usize>() as f64;
    match (spec.rule, spec.shape.as_slice()) {
        (Rule::Muon, [rows, columns]) => 20.0 * elements * (*rows).min(*columns) as f64,
        _ => 10.0 * elements,
    }
}
