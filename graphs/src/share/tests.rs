//! Slices, and the bytes of both forms against the formulas.

use ops::DType;
use proptest::prelude::*;

use super::*;
use crate::{PlanSpec, decoder::tests::nano, lower, mesh::Mesh, plan::Batch};

fn actor(replica: usize) -> Address {
    Address { replica, stage: 0, rank: 0, side: Side::Stage }
}

fn made(rows: usize, holders: usize, owner: usize, is_cut: bool, reduction: Reduction) -> Share {
    let owner = actor(owner % holders);
    Share { holders: (0..holders).map(actor).collect(), owner, rows, is_cut, reduction }
}

/// What all holders together send, and what they receive, in rows.
fn totals(share: &Share) -> [Exchange; 2] {
    let mut sums = [Exchange::default(); 2];
    for holder in 0..share.holders.len() {
        sums[0].add(share.sent(holder));
        sums[1].add(share.received(holder));
    }
    sums
}

proptest! {
    #[test]
    fn every_row_is_in_one_slice_and_all_that_is_sent_is_received(
        rows in 0..40usize, holders in 1..12usize, owner in 0..12usize, is_cut: bool, lanes: bool,
    ) {
        let scatters = is_cut && !lanes;
        let reduction = if scatters { Reduction::Scatter } else { Reduction::Chain };
        let share = made(rows, holders, owner, is_cut, reduction);
        let all: Vec<usize> = share.slices().flat_map(|(_, rows)| rows).collect();
        prop_assert_eq!(all, (0..rows).collect::<Vec<_>>());
        let fair = rows.div_ceil(holders);
        prop_assert!(!is_cut || share.slices().all(|(_, rows)| rows.len() <= fair));
        let [sent, received] = totals(&share);
        prop_assert_eq!(sent, received);
    }
}

#[test]
fn bytes_of_even_slices_are_those_of_the_formulas() {
    for (h, s) in [(2, 6), (4, 8), (8, 8)] {
        let [holders, rows] = [h, s].map(|it| it as usize);
        let scatter = made(rows, holders, 1, true, Reduction::Scatter);
        let gathered = s * (h - 1) / h;
        let once = |gradients| Exchange {
            gradients,
            momentum: gathered,
            updates: gathered,
            values: s * (h - 1),
        };
        assert_eq!(totals(&scatter)[0], once(s * (h - 1)));
        for holder in 0..holders {
            assert_eq!(scatter.sent(holder).gradients, gathered, "a reduce-scatter");
            assert_eq!(scatter.sent(holder).values, gathered, "an all-gather");
        }
        let chain = made(rows, holders, 1, true, Reduction::Chain);
        assert_eq!(totals(&chain)[0], once((h - 1) * (s + s / h)));
        for owner in [holders - 1, 0] {
            let whole = made(rows, holders, owner, false, Reduction::Chain);
            let more = if owner == 0 { s } else { 0 };
            let values = s * (h - 1);
            let expected = Exchange { gradients: values + more, values, ..Exchange::default() };
            assert_eq!(totals(&whole)[0], expected);
        }
    }
}

#[test]
fn a_chain_of_several_lanes_moves_no_more_than_a_scatter_of_each_lane_would() {
    for h in 2..9_u64 {
        let s = 3 * h;
        let chain = made(s as usize, h as usize, 0, true, Reduction::Chain);
        for lanes in 2..5 {
            // The first holder can add its lanes beforehand; the others send each of them.
            let apart = s * (h - 1) / h * (1 + (h - 1) * lanes);
            assert!(totals(&chain)[0].gradients <= apart, "{h} holders, {lanes} lanes");
        }
    }
}

fn of_nano(mesh: Mesh, zero: Zero, lanes: Option<usize>) -> (ModelGraph, Plan) {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let batch = Batch { sequences: 16, context: 16, microbatch: 1, lanes };
    let plan = lower(&graph, &PlanSpec { mesh, zero, ..PlanSpec::default() }, batch).unwrap();
    (graph, plan)
}

#[test]
fn stage_1_cuts_all_but_the_bias_and_scatters_where_holders_have_one_lane() {
    let mesh = Mesh { ep: 2, dp: 2, ..Mesh::default() };
    for lanes in [None, Some(4), Some(8)] {
        let (graph, plan) = of_nano(mesh, Zero::Stage1, lanes);
        for (parameter, share) in graph.parameters().iter().zip(shares(&plan, &graph)) {
            assert_eq!(share.is_cut, parameter.spec.rule != Rule::Balance, "{}", parameter.name);
            // An expert group computes the lanes of both ranks of its replica.
            let own = match (lanes, parameter.expert) {
                (None, _) => 1,
                (Some(lanes), None) => lanes / 4,
                (Some(lanes), Some(_)) => lanes / 2,
            };
            let scatters = share.is_cut && own == 1;
            assert_eq!(share.reduction == Reduction::Scatter, scatters, "{}", parameter.name);
        }
    }
    let (graph, plan) = of_nano(mesh, Zero::Owners, Some(4));
    assert!(shares(&plan, &graph).iter().all(|it| !it.is_cut && it.slices().count() == 1));
}

#[test]
fn only_newton_schulz_counts_when_owners_of_slices_are_balanced() {
    let (graph, plan) = of_nano(Mesh { dp: 4, ..Mesh::default() }, Zero::Stage1, Some(4));
    let mut load = [0.0; 4];
    for (parameter, share) in graph.parameters().iter().zip(shares(&plan, &graph)) {
        load[share.owner.replica] += owner_flops(&plan, &parameter.spec);
    }
    let (least, most) =
        (load.iter().copied().fold(f64::MAX, f64::min), load.into_iter().fold(0.0, f64::max));
    assert!(most < 1.2 * least, "{load:?}");
    let embedding = graph.parameters().iter().find(|it| it.name == "model.embed_tokens.weight");
    assert_eq!(owner_flops(&plan, &embedding.unwrap().spec), 0.0);
    let muon = |spec: &WeightSpec| spec.rule == Rule::Muon;
    let adamw = exchanged(&plan, &graph, DType::Bf16, |_| false)[0][0];
    let muon = exchanged(&plan, &graph, DType::Bf16, muon)[0][0];
    assert_eq!((adamw.momentum, adamw.updates), (0, 0));
    assert_eq!((muon.gradients, muon.values), (adamw.gradients, adamw.values));
    assert_eq!(muon.momentum, 2 * muon.updates, "in F32 there, in BF16 back");
}
