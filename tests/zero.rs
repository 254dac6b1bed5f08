//! Sharded optimizers are the unsharded run: the same bits, the bytes of the formulas, and one
//! Newton-Schulz for each matrix.

use std::collections::BTreeMap;

use graphs::{
    Decoder, ModelGraph, Plan, PlanSpec,
    mesh::Mesh,
    share::{Exchange, Reduction, shares},
    spec::{Overlap, Zero},
};
use ops::{
    DType, Rule,
    optim::{MuonClip, Optimizer, PlainAdamW},
};
use proptest::prelude::*;
use runtime::{Cluster, Setup, StepReport};

use crate::small;

const STEPS: usize = 3;

/// Meshes of one to eight data ranks; the small batch has four lanes, so eight are asked for.
const MESHES: [(usize, usize); 6] = [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)];

fn spec(dp: usize, ep: usize, zero: Zero) -> PlanSpec {
    PlanSpec { mesh: Mesh { dp, ep, ..Mesh::default() }, zero, ..PlanSpec::default() }
}

fn lowered(graph: &ModelGraph, spec: &PlanSpec, lanes: Option<usize>) -> Plan {
    let batch = graphs::plan::Batch { lanes, ..small::BATCH };
    graphs::lower(graph, spec, batch).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// Both optimizers, with a norm and a logit so small that every step is clipped.
fn optimizers() -> [Optimizer; 2] {
    let muon = MuonClip { qk_clip: Some(0.02), ..MuonClip::default() };
    [Optimizer::MuonClip(muon), Optimizer::AdamW(PlainAdamW::default())]
}

/// What a run leaves: reports, and all tensors bit by bit.
struct Run {
    reports: Vec<StepReport>,
    tensors: BTreeMap<String, Vec<u32>>,
}

fn run(setup: Setup, vocab: usize, steps: usize) -> Run {
    let setup = Setup { audit: true, clip: Some(0.05), ..setup };
    let mut cluster = Cluster::start(setup, small::Numbers::new(vocab)).unwrap();
    let reports = (0..steps).map(|_| cluster.step().unwrap()).collect();
    let tensors = cluster.snapshot().unwrap().tensors.into_iter();
    let bits = |tensor: ops::Tensor| tensor.f32().iter().map(|x| x.to_bits()).collect();
    Run { reports, tensors: tensors.map(|(name, tensor)| (name, bits(tensor))).collect() }
}

fn compare(name: &str, one: &Run, other: &Run) {
    for (a, b) in one.reports.iter().zip(&other.reports) {
        let figures = |it: &StepReport| (it.loss.to_bits(), it.grad_norm.to_bits());
        assert_eq!(figures(a), figures(b), "{name}, step {}", a.step);
        assert_eq!(a.audit, b.audit, "{name}, step {}", a.step);
    }
    assert_eq!(one.tensors.len(), other.tensors.len(), "{name}");
    for (tensor, bits) in &one.tensors {
        assert_eq!(Some(bits), other.tensors.get(tensor), "{name}: {tensor}");
    }
}

fn same_bits(dtype: DType) {
    let decoder = small::decoder();
    let graph = small::graph(&decoder);
    for optimizer in optimizers() {
        let run = |spec: &PlanSpec| {
            let plan = lowered(&graph, spec, Some(8));
            let optimizer = optimizer.clone();
            run(Setup { dtype, optimizer, ..small::setup(graph.clone(), plan) }, 64, STEPS)
        };
        let unsharded = run(&spec(1, 1, Zero::Owners));
        let is_muon = matches!(optimizer, Optimizer::MuonClip(_));
        for report in &unsharded.reports {
            assert!(report.grad_norm > 0.05, "the norm is clipped: {}", report.grad_norm);
            assert_eq!(report.clipped_heads > 0, is_muon, "{}", report.max_logit);
        }
        for (dp, ep) in MESHES {
            for zero in [Zero::Owners, Zero::Stage1] {
                let sharded = run(&spec(dp, ep, zero));
                compare(&format!("{zero:?}, dp {dp}, ep {ep}, {dtype:?}"), &unsharded, &sharded);
            }
        }
    }
}

#[test]
fn sharded_runs_have_the_bits_of_the_unsharded_one_in_f32() {
    same_bits(DType::F32);
}

#[test]
fn sharded_runs_have_the_bits_of_the_unsharded_one_in_bf16() {
    same_bits(DType::Bf16);
}

#[test]
fn pipelines_and_sums_without_lanes_are_sharded_too() {
    let decoder = small::decoder();
    let graph = small::graph(&decoder);
    for (pp, lanes) in [(2, Some(4)), (1, None)] {
        let run = |zero, overlap| {
            let mesh = Mesh { pp, ep: 2, dp: 2, ..Mesh::default() };
            let spec = PlanSpec { mesh, zero, overlap, ..PlanSpec::default() };
            run(small::setup(graph.clone(), lowered(&graph, &spec, lanes)), 64, STEPS)
        };
        let plain = run(Zero::Owners, Vec::new());
        compare(&format!("pp {pp}"), &plain, &run(Zero::Stage1, Vec::new()));
        for zero in [Zero::Owners, Zero::Stage1] {
            let early = run(zero, vec![Overlap::GradReduce]);
            compare(&format!("pp {pp}, {zero:?}, sums leave early"), &plain, &early);
        }
    }
}

/// A decoder whose widths are as odd as they can be.
fn odd(heads: usize, ranks: (usize, usize), widths: (usize, usize, usize)) -> Decoder {
    Decoder {
        layers: 2,
        hidden: 2 * widths.0 + 1,
        dense_width: widths.1,
        expert_width: widths.2,
        vocab: 11,
        heads,
        q_rank: Some(ranks.0),
        kv_rank: ranks.1,
        nope: 3,
        rope: 2,
        value: 1,
        ..small::decoder()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn matrices_with_fewer_rows_than_holders_are_sharded_like_any_other(
        heads in 1..4usize, ranks in (1..5usize, 1..5usize),
        widths in (1..4usize, 1..6usize, 1..6usize),
        dp in 1..3usize, ep in 1..3usize, scatters: bool, narrow: bool,
    ) {
        let decoder = odd(heads, ranks, widths);
        let graph = small::graph(&decoder);
        let (dp, ep) = (2 * dp, 1 << (ep - 1));
        let lanes = if scatters { None } else { Some(dp * ep) };
        let dtype = if narrow { DType::Bf16 } else { DType::F32 };
        let [optimizer, _] = optimizers();
        let run = |zero| {
            let plan = lowered(&graph, &spec(dp, ep, zero), lanes);
            let optimizer = optimizer.clone();
            run(Setup { dtype, optimizer, ..small::setup(graph.clone(), plan) }, 11, 2)
        };
        compare(&format!("{decoder:?}"), &run(Zero::Owners), &run(Zero::Stage1));
    }
}

/// The bytes of gradients, momentum, updates and values that the holders of all parameters send,
/// by the formulas in the documentation of [`Exchange`].
fn by_formula(graph: &ModelGraph, plan: &Plan, dtype: DType) -> [f64; 4] {
    let mut sums = [0.0; 4];
    for (parameter, share) in graph.parameters().iter().zip(shares(plan, graph)) {
        let (s, h) = (parameter.elements() as f64, share.holders.len() as f64);
        let value = parameter.format(dtype).size() as f64;
        sums[3] += value * s * (h - 1.0);
        if parameter.spec.rule == Rule::Balance {
            continue;
        }
        sums[0] += 4.0 * s * (h - 1.0);
        if share.reduction == Reduction::Chain {
            let last = share.slice(share.holders.len() - 1).len() * parameter.columns();
            sums[0] += 4.0 * (s - last as f64);
        }
        if parameter.spec.rule == Rule::Muon && plan.zero == Zero::Stage1 {
            let at = share.position(share.owner).unwrap();
            let own = (share.slice(at).len() * parameter.columns()) as f64;
            sums[1] += 4.0 * (s - own);
            sums[2] += dtype.size() as f64 * (s - own);
        }
    }
    sums
}

#[test]
fn every_rank_sends_the_bytes_that_the_plan_says_and_all_of_them_those_of_the_formula() {
    let graph = small::graph(&small::decoder());
    let [muon, _] = optimizers();
    for dtype in [DType::F32, DType::Bf16] {
        for (dp, ep) in MESHES {
            for (zero, lanes) in
                [(Zero::Owners, Some(8)), (Zero::Stage1, Some(8)), (Zero::Stage1, None)]
            {
                let name = format!("{zero:?}, dp {dp}, ep {ep}, {dtype:?}, {lanes:?}");
                let plan = lowered(&graph, &spec(dp, ep, zero), lanes);
                let setup = small::setup(graph.clone(), plan.clone());
                let report = run(Setup { dtype, ..setup }, 64, 2).reports.remove(1);
                let mut planned: BTreeMap<_, Exchange> = BTreeMap::new();
                for (parameter, share) in graph.parameters().iter().zip(shares(&plan, &graph)) {
                    let (rule, shape) = (parameter.spec.rule, &parameter.spec.shape);
                    let row = Exchange::of_row(parameter, dtype, muon.muon(rule, shape).is_some());
                    for (holder, address) in share.holders.iter().enumerate() {
                        planned.entry(*address).or_default().add(share.sent(holder).times(row));
                    }
                }
                let mut sum = Exchange::default();
                for (address, sent) in report.exchange {
                    let expected = planned.get(&address).copied().unwrap_or_default();
                    assert_eq!(sent, expected, "{name}: {address}");
                    sum.add(sent);
                }
                let sums = [sum.gradients, sum.momentum, sum.updates, sum.values];
                assert_eq!(sums.map(|it| it as f64), by_formula(&graph, &plan, dtype), "{name}");
            }
        }
    }
}

#[test]
fn newton_schulz_runs_once_for_each_matrix_that_muon_moves() {
    let graph = small::graph(&small::decoder());
    let matrices = graph.parameters().iter().filter(|it| it.spec.rule == Rule::Muon).count();
    assert!(60 < matrices, "{matrices}");
    let [muon, adamw] = optimizers();
    for (optimizer, expected) in [(muon, matrices), (adamw, 0)] {
        for (dp, ep) in MESHES {
            for zero in [Zero::Owners, Zero::Stage1] {
                let plan = lowered(&graph, &spec(dp, ep, zero), Some(8));
                let optimizer = optimizer.clone();
                let setup = Setup { optimizer, ..small::setup(graph.clone(), plan) };
                for report in run(setup, 64, 2).reports {
                    assert_eq!(report.audit.newton_schulz, expected, "{zero:?}, dp {dp}, ep {ep}");
                }
            }
        }
    }
}

#[test]
fn no_rank_keeps_more_masters_and_momentum_than_its_part() {
    let graph = small::graph(&small::decoder());
    let elements: usize = graph.parameters().iter().map(|it| it.elements()).sum();
    for dp in [1, 2, 4] {
        let plan = lowered(&graph, &spec(dp, 1, Zero::Stage1), Some(8));
        let report = run(small::setup(graph.clone(), plan), 64, 1).reports.remove(0);
        let mut replicas = vec![0; dp];
        for actor in &report.memory.actors {
            replicas[actor.address.replica] += actor.fixed.masters;
        }
        let all = 4 * elements as u64;
        assert_eq!(replicas.iter().sum::<u64>(), all, "each value is kept once");
        // Rows do not always divide, and biases are whole.
        let most = replicas.iter().max().copied().unwrap_or(0);
        assert!(most as f64 <= 1.05 * all as f64 / dp as f64, "dp {dp}: {replicas:?} of {all}");
    }
}
