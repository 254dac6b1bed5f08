//! What each actor holds whatever it does: parameters, what it owns, the step's tokens.

use ops::{DType, Rule, optim::Optimizer};

use crate::{
    address::Address,
    memory::Fixed,
    model::{ModelGraph, Source},
    plan::{Plan, Side},
    share,
};

/// For every actor in the order of [`Address::index`]: what stays, and the bytes of gradient sums
/// that others may send it.
pub(super) fn all_fixed(
    graph: &ModelGraph,
    plan: &Plan,
    precision: DType,
    optimizer: &Optimizer,
) -> Vec<(Fixed, u64)> {
    let mut all = vec![(Fixed::default(), 0); 2 * plan.mesh.ranks()];
    let mut add = |address: Address, of: &dyn Fn(&mut (Fixed, u64))| {
        of(&mut all[address.index(&plan.mesh)]);
    };
    for (parameter, share) in graph.parameters().iter().zip(share::shares(plan, graph)) {
        let elements = parameter.elements();
        let value = (elements * parameter.format(precision).size()) as u64;
        share.holders.iter().for_each(|&it| add(it, &|(fixed, _)| fixed.parameters += value));
        let master = (elements * DType::F32.size()) as u64;
        let (rule, shape) = (parameter.spec.rule, &parameter.spec.shape);
        let state = optimizer.state_elements(rule, shape) * DType::F32.size();
        add(share.owner, &|(fixed, _)| {
            fixed.masters += master;
            fixed.states += state as u64;
        });
        if rule != Rule::Balance {
            // A sum goes from each holder to the next, and from the last to the owner.
            let last = share.holders.last().filter(|&&last| last != share.owner);
            let takers = share.holders.iter().skip(1).chain(last.map(|_| &share.owner));
            takers.for_each(|&taker| add(taker, &|(_, reduction)| *reduction += master));
        }
    }
    let inputs = inputs(graph, plan);
    for address in Address::all(&plan.mesh) {
        if address.side == Side::Stage {
            add(address, &|(fixed, _)| fixed.inputs = inputs[address.stage]);
        }
    }
    all
}

/// Tokens and targets of a rank's microbatches, at the stages where a node reads them.
fn inputs(graph: &ModelGraph, plan: &Plan) -> Vec<u64> {
    let microbatches = plan.batch.microbatches(plan.mesh.data_ranks());
    let unit = plan.batch.microbatch * plan.batch.context;
    let mut inputs = vec![0; plan.mesh.pp];
    for chunk in &plan.chunks {
        let mut sources = chunk.nodes.clone().flat_map(|node| &graph.node(node).inputs);
        if sources.any(|source| !matches!(source, Source::Node { .. })) {
            inputs[chunk.stage] = (2 * microbatches * unit * DType::I32.size()) as u64;
        }
    }
    inputs
}
