//! Splitting a model changes when and where things happen, never a bit of what is computed.

use std::num::NonZeroU32;

use graphs::{
    Decoder, PlanSpec,
    mesh::Mesh,
    policy::{Activations, Fp8, Offload, Place, Recompute, Store, Stored, TILE},
    schedule::{Automatic, Hybrid, Interleaved, Schedule},
    spec::{Overlap, WeightGrad, Zero},
};
use jobs::{
    Request, load,
    verify::{Trace, first_difference, trace},
};
use ops::DType;
use runtime::Setup;

use crate::small;

const STEPS: usize = 5;

fn spec(pp: usize, vpp: usize, ep: usize, dp: usize) -> PlanSpec {
    PlanSpec { mesh: Mesh { pp, vpp, ep, dp }, ..PlanSpec::default() }
}

fn in_slices(spec: PlanSpec) -> PlanSpec {
    PlanSpec { zero: Zero::Stage1, ..spec }
}

fn interleaved(extra_warmup: usize, split_backward: bool) -> Schedule {
    Schedule::Interleaved1F1B(Interleaved { extra_warmup, split_backward, ..Interleaved::PLAIN })
}

fn paired(extra_warmup: usize) -> Schedule {
    Schedule::Interleaved1F1B(Interleaved { extra_warmup, paired: true, ..Interleaved::PLAIN })
}

fn automatic() -> Schedule {
    let limit = NonZeroU32::new(2).expect("two");
    Schedule::Automatic(Automatic { forward: 20, input: 19, weight: 9, limit, ..Automatic::PLAIN })
}

fn hybrid(split_pairs: bool) -> Schedule {
    Schedule::Hybrid(Hybrid { split_pairs, group: None })
}

pub fn recompute(spec: PlanSpec) -> PlanSpec {
    PlanSpec { recompute: Recompute::ALL.to_vec(), ..spec }
}

pub fn overlap(spec: PlanSpec) -> PlanSpec {
    PlanSpec { overlap: vec![Overlap::ExpertAllToAll], ..spec }
}

pub fn reduce_early(spec: PlanSpec) -> PlanSpec {
    PlanSpec { overlap: [spec.overlap, vec![Overlap::GradReduce]].concat(), ..spec }
}

pub fn offload(spec: PlanSpec) -> PlanSpec {
    let how = Activations { to: Place::Host, prefetch: 1, stored: false };
    PlanSpec { offload: Some(Offload::Activations(how)), ..spec }
}

/// Stores what K2 stores, and the same with all of its policies.
pub fn stored() -> Vec<(&'static str, PlanSpec)> {
    let store = |tensors: &[Stored], spec| {
        let fp8 = Fp8 { tensors: tensors.to_vec(), tile: TILE };
        PlanSpec { store: Some(Store::Fp8(fp8)), ..spec }
    };
    let k2 = [Stored::MoeUpInput, Stored::SwiGluInput];
    let warm = PlanSpec { schedule: Some(interleaved(1, true)), ..spec(2, 2, 2, 1) };
    let late = PlanSpec { weight_grad: Some(WeightGrad::Late(1)), ..spec(2, 1, 1, 2) };
    let all = store(&k2, recompute(offload(overlap(warm))));
    let sent = Offload::Activations(Activations { to: Place::Host, prefetch: 2, stored: true });
    vec![
        ("fp8", store(&k2, spec(1, 1, 1, 1))),
        ("fp8 ep 2", store(&k2, spec(1, 1, 2, 1))),
        ("fp8 late W dp 2", store(&k2, late)),
        ("all of k2", all.clone()),
        ("all of k2, fp8 sent too", PlanSpec { offload: Some(sent), ..all }),
    ]
}

/// Stores everything that can be.
pub fn all_stored() -> PlanSpec {
    let fp8 = Fp8 { tensors: Stored::ALL.to_vec(), tile: TILE };
    PlanSpec { store: Some(Store::Fp8(fp8)), ..spec(2, 1, 2, 1) }
}

/// The plan of a job whose schedule is a file, on two replicas.
fn from_a_file() -> PlanSpec {
    let request = Request { job: "../tests/jobs/orders.ron".into(), ..Request::default() };
    let spec = load(&request).unwrap_or_else(|report| panic!("{report}")).job.plan().clone();
    assert!(matches!(spec.schedule, Some(Schedule::Orders(_))));
    PlanSpec { mesh: Mesh { dp: 2, ..spec.mesh }, ..spec }
}

pub fn plans() -> Vec<(&'static str, PlanSpec)> {
    let with = |schedule, spec| PlanSpec { schedule: Some(schedule), ..spec };
    let when = |weight_grad, spec| PlanSpec { weight_grad: Some(weight_grad), ..spec };
    vec![
        ("one stage", spec(1, 1, 1, 1)),
        ("pp 2", spec(2, 1, 1, 1)),
        ("pp 2 gpipe", with(Schedule::GPipe, spec(2, 1, 1, 1))),
        ("pp 2 early W", when(WeightGrad::Early, spec(2, 1, 1, 1))),
        ("pp 2 late W", when(WeightGrad::Late(2), spec(2, 1, 1, 1))),
        ("pp 4", spec(4, 1, 1, 1)),
        ("pp 2 vpp 2", with(interleaved(0, false), spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 split", with(interleaved(0, true), spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 extra", with(interleaved(1, false), spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 extra split", with(interleaved(1, true), spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 loop", with(Schedule::LoopedBfs, spec(2, 2, 1, 1))),
        ("pp 2 zb-h1", with(Schedule::ZbH1, spec(2, 1, 1, 1))),
        ("pp 4 zb-h2", with(Schedule::ZbH2, spec(4, 1, 1, 1))),
        ("pp 4 automatic", with(automatic(), spec(4, 1, 1, 1))),
        ("pp 2 vpp 2 zero", with(Schedule::InterleavedZeroBubble, spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 zb-v", with(Schedule::ZbV, spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 dual", with(Schedule::DualPipeV, spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 v-half", with(Schedule::VHalf, spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 v-min", with(Schedule::VMin, spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 paired", with(paired(1), spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 hybrid", with(hybrid(false), spec(2, 2, 1, 1))),
        ("pp 2 vpp 2 ep 2 hybrid split", with(hybrid(true), spec(2, 2, 2, 1))),
        ("pp 2 vpp 2 dp 2 from a file", from_a_file()),
        ("ep 2", spec(1, 1, 2, 1)),
        ("ep 4", spec(1, 1, 4, 1)),
        ("pp 2 vpp 2 ep 2", with(interleaved(1, true), spec(2, 2, 2, 1))),
        (
            "pp 2 vpp 2 ep 2 loop early W",
            when(WeightGrad::Early, with(Schedule::LoopedBfs, spec(2, 2, 2, 1))),
        ),
        ("pp 2 vpp 2 ep 2 zb-v", with(Schedule::ZbV, spec(2, 2, 2, 1))),
        ("pp 2 ep 4 late W", when(WeightGrad::Late(1), spec(2, 1, 4, 1))),
        ("ep 2 recompute", recompute(spec(1, 1, 2, 1))),
        ("pp 2 late W recompute", recompute(when(WeightGrad::Late(2), spec(2, 1, 1, 1)))),
        ("pp 2 vpp 2 ep 2 overlap", overlap(with(interleaved(1, true), spec(2, 2, 2, 1)))),
        ("pp 2 vpp 2 ep 2 overlap late W", overlap(with(interleaved(1, false), spec(2, 2, 2, 1)))),
        ("pp 2 ep 2 dual overlap", overlap(with(Schedule::DualPipeV, spec(2, 2, 2, 1)))),
        ("pp 2 offload", offload(with(Schedule::GPipe, spec(2, 1, 1, 1)))),
        ("pp 2 vpp 2 ep 2 offload", offload(with(interleaved(1, true), spec(2, 2, 2, 1)))),
        (
            "pp 2 vpp 2 ep 2 recompute offload overlap",
            recompute(offload(overlap(with(interleaved(1, true), spec(2, 2, 2, 1))))),
        ),
        ("dp 2", spec(1, 1, 1, 2)),
        ("pp 2 ep 2 dp 2", spec(2, 1, 2, 2)),
        ("dp 4", spec(1, 1, 1, 4)),
        ("dp 4 in slices", in_slices(spec(1, 1, 1, 4))),
        ("pp 2 ep 2 dp 2 in slices", in_slices(spec(2, 1, 2, 2))),
        ("pp 2 vpp 2 ep 2 in slices", in_slices(with(Schedule::ZbV, spec(2, 2, 2, 1)))),
        ("pp 2 dp 2 reduce early", reduce_early(with(Schedule::ZbH1, spec(2, 1, 1, 2)))),
        (
            "pp 2 vpp 2 ep 2 dp 2 overlap reduce early in slices",
            reduce_early(overlap(in_slices(with(interleaved(1, true), spec(2, 2, 2, 2))))),
        ),
    ]
}

pub fn traces(decoder: &Decoder, dtype: DType, plans: &[(&str, PlanSpec)]) -> Vec<Trace> {
    let one = |(name, spec): &(&str, PlanSpec)| {
        let graph = small::graph(decoder);
        let plan = small::plan(&graph, spec);
        let setup = Setup { dtype, ..small::setup(graph, plan) };
        let feed = small::Numbers::new(decoder.vocab);
        trace(name, setup, feed, STEPS).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    plans.iter().map(one).collect()
}

fn check(dtype: DType) {
    let decoder = small::decoder();
    let traces = traces(&decoder, dtype, &plans());
    assert_eq!(first_difference(&small::graph(&decoder), &traces), None);
    assert!(traces.iter().all(|trace| trace.hash() == traces[0].hash()));
    let seen = traces[0].steps[0].gradients.iter().flatten().count();
    assert!(60 < seen, "{seen} gradients were compared");
}

#[test]
fn every_plan_gives_the_same_bits_in_f32() {
    check(DType::F32);
}

#[test]
fn every_plan_gives_the_same_bits_in_bf16() {
    check(DType::Bf16);
}

#[test]
fn a_difference_is_found_and_named() {
    let decoder = small::decoder();
    let graph = small::graph(&decoder);
    let plan = small::plan(&graph, &spec(1, 1, 1, 1));
    let feed = || small::Numbers::new(decoder.vocab);
    let right = trace("right", small::setup(small::graph(&decoder), plan.clone()), feed(), 2);
    let mut other = plan;
    other.batch.lanes = Some(1);
    let wrong = trace("other lanes", small::setup(graph, other), feed(), 2);
    let traces = [right.unwrap(), wrong.unwrap()];
    let difference = first_difference(&small::graph(&decoder), &traces).unwrap();
    assert_eq!((difference.plan.as_str(), difference.step), ("other lanes", 1));
    assert!(difference.what.starts_with("gradient of `model."), "{difference:?}");
}
