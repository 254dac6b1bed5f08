//! What each actor holds whatever it does: parameters, what it updates, the step's tokens.

use ops::{DType, optim::Optimizer};

use crate::{
    address::Address,
    memory::{Fixed, Reserve},
    model::{ModelGraph, Parameter, Source},
    plan::{Plan, Side},
    share::{Exchange, Share, hosted, kept_bytes, shares},
};

/// For every actor in the order of [`Address::index`]: what stays, and what others may send it
/// beside messages of its program.
pub(super) fn all_fixed(
    graph: &ModelGraph,
    plan: &Plan,
    precision: DType,
    optimizer: &Optimizer,
) -> Vec<(Fixed, Reserve)> {
    let mut all = vec![(Fixed::default(), Reserve::default()); 2 * plan.mesh.ranks()];
    let hosted = hosted(plan, graph, optimizer);
    for (number, (parameter, share)) in
        graph.parameters().iter().zip(shares(plan, graph)).enumerate()
    {
        for (holder, address) in share.holders.iter().enumerate() {
            let (fixed, reserve) = &mut all[address.index(&plan.mesh)];
            fixed.parameters += (parameter.elements() * parameter.format(precision).size()) as u64;
            let (masters, states) = kept_bytes(parameter, share.slice(holder).len(), optimizer);
            match hosted.contains(number, *address) {
                true => fixed.host += masters + states,
                false => {
                    fixed.masters += masters;
                    fixed.states += states;
                }
            }
            receive(reserve, parameter, &share, holder, precision, optimizer);
        }
    }
    let inputs = inputs(graph, plan);
    for address in Address::all(&plan.mesh) {
        if address.side == Side::Stage {
            all[address.index(&plan.mesh)].0.inputs = inputs[address.stage];
        }
    }
    all
}

/// Adds what a holder of a parameter is sent for its update.
fn receive(
    reserve: &mut Reserve,
    parameter: &Parameter,
    share: &Share,
    holder: usize,
    precision: DType,
    optimizer: &Optimizer,
) {
    let by_muon = optimizer.muon(parameter.spec.rule, &parameter.spec.shape).is_some();
    let row = Exchange::of_row(parameter, precision, by_muon);
    let Exchange { gradients, momentum, updates, values } = share.received(holder).times(row);
    reserve.reduction += gradients;
    let joined = share.slice(holder).len() as u64 * row.gradients;
    reserve.update += joined + momentum + updates + values;
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
