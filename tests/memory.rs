//! What the memory scan counts on paper is what the actors hold, to the byte.

use graphs::{
    PlanSpec,
    edge::Class,
    memory::{ActorMemory, Loads, Scan},
    mesh::Mesh,
    plan::Batch,
    schedule::{Interleaved, Schedule},
    spec::Zero,
};
use ops::DType;
use runtime::{Cluster, Setup, report::MemoryReport};

use crate::{parity, small};

/// Compares every actor, instruction and class of one step.
fn compare(name: &str, scan: &Scan<'_>, report: &MemoryReport) {
    for (measured, trail) in report.actors.iter().zip(&report.trails) {
        let who = format!("{name}: {}", measured.address);
        let mut paper = Vec::new();
        let loads = Loads::Measured(&report.rows);
        let planned = scan.follow(measured.address, &loads, &mut |bytes| paper.push(*bytes));
        assert_eq!(planned.fixed, measured.fixed, "{who}");
        assert_eq!(planned.levels, measured.levels, "{who}");
        assert_eq!(&paper, trail, "{who}");
        assert_eq!(planned.peak, measured.peak, "{who}");
        assert_eq!(planned.host, measured.host, "{who}: on the host");
        assert_eq!(planned.number, measured.number, "{who}");
        assert_eq!(planned.reserve.reduction, measured.reserve.reduction, "{who}");
        assert_eq!(planned.reserve.update, measured.reserve.update, "{who}");
        let (bound, used) = (planned.reserve.messages, measured.reserve.messages);
        assert!(used <= bound, "{who}: {used} bytes of messages came, {bound} were reserved");
        let worst = scan.actor(measured.address, &Loads::Worst);
        assert!(worst.peak.bytes >= measured.peak.bytes, "{who}: worse than the worst");
        assert!(worst.reserve.messages >= used, "{who}: more messages than the worst");
    }
}

/// Runs a plan for some steps and compares each.
pub fn check(name: &str, spec: &PlanSpec, dtype: DType, steps: usize) -> Vec<ActorMemory> {
    check_in(small::BATCH, name, spec, dtype, steps)
}

/// The same for a batch that may have lanes or not.
fn check_in(
    batch: Batch,
    name: &str,
    spec: &PlanSpec,
    dtype: DType,
    steps: usize,
) -> Vec<ActorMemory> {
    let decoder = small::decoder();
    let graph = small::graph(&decoder);
    let plan = graphs::lower(&graph, spec, batch).unwrap();
    let setup = Setup { dtype, audit: true, ..small::setup(graph.clone(), plan.clone()) };
    let optimizer = setup.optimizer.clone();
    let scan = Scan::new(&graph, &plan, dtype, &optimizer);
    let feed = small::Numbers::new(decoder.vocab);
    let mut cluster = Cluster::start(setup, feed).unwrap();
    let mut actors = Vec::new();
    for step in 0..steps {
        let report = cluster.step().unwrap();
        compare(&format!("{name}, {dtype:?}, step {step}"), &scan, &report.memory);
        let total: u64 = report.memory.actors.iter().map(ActorMemory::total).sum();
        assert_eq!(report.memory_bytes as u64, total);
        actors = report.memory.actors;
    }
    actors
}

#[test]
fn every_plan_holds_what_its_scan_says_in_f32() {
    for (name, spec) in parity::plans() {
        check(name, &spec, DType::F32, 1);
    }
}

#[test]
fn the_same_in_bf16_and_step_after_step() {
    let plans = parity::plans();
    for wanted in ["one stage", "pp 2 late W", "pp 2 vpp 2 ep 2", "pp 2 vpp 2 ep 2 zb-v", "dp 2"] {
        let (name, spec) = plans.iter().find(|(name, _)| *name == wanted).unwrap();
        check(name, spec, DType::Bf16, 3);
    }
}

#[test]
fn slices_of_masters_states_and_gradients_are_counted_to_the_byte() {
    for (dp, ep) in [(2, 1), (4, 1), (1, 4), (2, 2)] {
        for lanes in [Some(4), None] {
            let mesh = Mesh { pp: 2, dp, ep, ..Mesh::default() };
            let spec = PlanSpec { mesh, zero: Zero::Stage1, ..PlanSpec::default() };
            let batch = Batch { lanes, ..small::BATCH };
            for dtype in [DType::F32, DType::Bf16] {
                check_in(batch, "slices", &spec, dtype, 2);
            }
        }
    }
}

#[test]
fn what_is_stored_in_fp8_or_on_the_host_is_counted_too() {
    let plans = parity::stored();
    for (name, spec) in &plans {
        for dtype in [DType::F32, DType::Bf16] {
            let actors = check(name, spec, dtype, 2);
            let on_host = actors.iter().map(|actor| actor.host.bytes).max();
            assert_eq!(on_host > Some(0), spec.offload.is_some(), "{name}: {on_host:?}");
        }
    }
    check("all stored", &parity::all_stored(), DType::Bf16, 2);
}

#[test]
fn each_policy_lowers_the_peaks() {
    let spec = PlanSpec { schedule: Some(Schedule::GPipe), ..PlanSpec::default() };
    let spec = PlanSpec { mesh: Mesh { pp: 2, ..Mesh::default() }, ..spec };
    let peaks = |spec: &PlanSpec| -> u64 {
        check("peaks", spec, DType::Bf16, 1).iter().map(|actor| actor.peak.bytes).sum()
    };
    let plain = peaks(&spec);
    let (again, away) = (parity::recompute(spec.clone()), parity::offload(spec));
    let (recomputed, offloaded) = (peaks(&again), peaks(&away));
    assert!(recomputed < plain && offloaded < plain, "{plain} {recomputed} {offloaded}");
    let both = peaks(&parity::offload(again));
    assert!(both < recomputed && both < offloaded, "{both} {recomputed} {offloaded}");
}

#[test]
fn units_of_two_sequences_and_uneven_loads_are_counted_too() {
    let mesh = Mesh { pp: 2, vpp: 2, ep: 2, dp: 1 };
    let rule = Interleaved { extra_warmup: 1, split_backward: true, ..Interleaved::PLAIN };
    let schedule = Some(Schedule::Interleaved1F1B(rule));
    let spec = PlanSpec { mesh, microbatch: 2, schedule, ..PlanSpec::default() };
    let actors = check("units of two", &spec, DType::Bf16, 2);
    let peaks: Vec<u64> = actors.iter().map(|actor| actor.peak.bytes).collect();
    let groups = |rank: usize| peaks[2 * rank + 1];
    assert!(groups(0) != groups(1) || groups(2) != groups(3), "loads were uneven: {peaks:?}");
}

#[test]
fn one_sum_for_each_holder_is_counted_once_and_is_less_than_lanes() {
    let mesh = Mesh { pp: 2, vpp: 1, ep: 2, dp: 2 };
    let spec = PlanSpec { mesh, ..PlanSpec::default() };
    let sums = |batch: Batch| {
        let actors = check_in(batch, "sums", &spec, DType::F32, 2);
        let of = |actor: &ActorMemory| actor.peak.by_class.get(Class::WeightGradients);
        actors.iter().map(of).sum::<u64>()
    };
    let (one, lanes) = (Batch { lanes: None, ..small::BATCH }, small::BATCH);
    assert!(sums(one) < sums(lanes));
}
