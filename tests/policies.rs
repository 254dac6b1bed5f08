//! What policies for activations do to numbers, and what a device that is too small does to a run.

use graphs::{
    PlanSpec,
    address::Address,
    cluster::{Device, Link, Machine},
    memory::{Loads, Scan},
    mesh::Mesh,
    overlap::{Carried, Travel},
    plan::Plan,
    schedule::{Interleaved, Schedule},
    spec::{self, Zero},
};
use jobs::verify::first_difference;
use ops::DType;
use runtime::{Cluster, RunError, Setup, trace::Recording};

use crate::{memory, parity, small};

#[test]
fn fp8_storage_changes_numbers_a_little_and_the_same_under_every_plan() {
    let decoder = small::decoder();
    let plain = [("plain", PlanSpec::default())];
    for dtype in [DType::F32, DType::Bf16] {
        let exact = parity::traces(&decoder, dtype, &plain).remove(0);
        let stored = parity::traces(&decoder, dtype, &parity::stored());
        // What is computed again is computed from what was stored, which is another rounding.
        let (kept, again): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|trace| trace.plan.starts_with("fp8"));
        for same in [&kept, &again] {
            assert_eq!(first_difference(&small::graph(&decoder), same), None);
        }
        assert!(
            first_difference(&small::graph(&decoder), &[kept[0].clone(), again[0].clone()])
                .is_some()
        );
        let losses = |trace: &jobs::verify::Trace| -> Vec<f64> {
            trace.steps.iter().map(|step| f64::from_bits(step.loss)).collect()
        };
        for stored in [&kept[0], &again[0]] {
            let (exact, stored) = (losses(&exact), losses(stored));
            // The first loss comes before any backward pass.
            assert_eq!(exact[0], stored[0]);
            for (exact, stored) in exact.iter().zip(&stored).skip(1) {
                let off = (exact - stored).abs() / exact;
                assert!(0.0 < off && off < 2e-2, "{dtype:?}: {stored} is not near {exact}");
            }
        }
    }
}

#[test]
fn masters_and_states_on_the_host_leave_the_device_and_change_no_bit() {
    let decoder = small::decoder();
    let mesh = Mesh { pp: 1, vpp: 1, ep: 2, dp: 2 };
    let part =
        |offload_states: f64, zero| PlanSpec { mesh, offload_states, zero, ..PlanSpec::default() };
    let plans = [
        ("none", part(0.0, Zero::Owners)),
        ("half", part(0.5, Zero::Owners)),
        ("half of slices", part(0.5, Zero::Stage1)),
        ("all", part(1.0, Zero::Stage1)),
    ];
    let traces = parity::traces(&decoder, DType::F32, &plans);
    assert_eq!(first_difference(&small::graph(&decoder), &traces), None);
    for (name, spec) in &plans {
        let actors = memory::check(name, spec, DType::F32, 1);
        for actor in actors.iter().filter(|it| it.fixed.parameters > 0) {
            let device = actor.fixed.masters + actor.fixed.states;
            let part = actor.fixed.host as f64 / (actor.fixed.host + device) as f64;
            let wanted = spec.offload_states;
            assert!(
                part <= wanted && wanted - part < 0.1,
                "{name}: {part} of {wanted} on the host"
            );
        }
    }
}

/// A machine whose ranks may hold so many bytes.
fn machine(device: u64) -> Machine {
    let core = Device {
        name: "core".into(),
        memory: u64::MAX,
        bf16: 1e11,
        f32: 1e11,
        bandwidth: 1e10,
        launch: 0.0,
        achieved: 1.0,
    };
    let (message, latency) = (0.0, 0.0);
    let (link, host, device) = (None, None, Some(device));
    Machine { cores: 2, core, message, latency, link, host, device, apart: false }
}

#[test]
fn sums_that_leave_early_take_the_link_between_messages_and_change_no_bit() {
    let interleaved = Interleaved { extra_warmup: 1, ..Interleaved::PLAIN };
    let plain_spec = PlanSpec {
        mesh: Mesh { pp: 2, vpp: 2, ep: 2, dp: 1 },
        schedule: Some(Schedule::Interleaved1F1B(interleaved)),
        ..PlanSpec::default()
    };
    let run = |overlap: Vec<spec::Overlap>, link: Option<Link>| {
        let graph = small::graph(&small::decoder());
        let plan = small::plan(&graph, &PlanSpec { overlap, ..plain_spec.clone() });
        let machine = Some(Machine { link, ..machine(u64::MAX) });
        let setup = Setup { machine, ..small::setup(graph, plan.clone()) };
        let mut cluster = Cluster::start(setup, small::Numbers::new(64)).unwrap();
        let losses: Vec<u64> = (0..2).map(|_| cluster.step().unwrap().loss.to_bits()).collect();
        cluster.record();
        let last = cluster.step().unwrap().loss.to_bits();
        (losses, last, cluster.recording().unwrap(), plan)
    };
    let link = Link { each: 4e6, latency: 1e-4 };
    let plain = run(Vec::new(), None);
    let late = run(Vec::new(), Some(link));
    let early = run(vec![spec::Overlap::ExpertAllToAll, spec::Overlap::GradReduce], Some(link));
    for other in [&late, &early] {
        assert_eq!((&plain.0, plain.1), (&other.0, other.1));
    }
    let sums = |(_, _, recording, plan): &(_, _, Recording, Plan)| {
        let overlap = recording.overlap(plan);
        overlap.whole.get(&Carried::Sums).copied().unwrap_or_default()
    };
    assert_eq!(sums(&plain), Travel::default(), "nothing takes a link");
    // Without, a sum meets work only where the other actor of its rank is done later.
    let (late, early) = (sums(&late), sums(&early));
    assert!(late.exposed > 0.0 && early.part_hidden() > late.part_hidden(), "{late:?} {early:?}");
}

#[test]
fn a_device_that_holds_what_the_plan_says_suffices_and_a_smaller_one_ends_the_run() {
    let spec = PlanSpec { mesh: Mesh { pp: 2, vpp: 1, ep: 2, dp: 1 }, ..PlanSpec::default() };
    let graph = small::graph(&small::decoder());
    let plan = small::plan(&graph, &spec);
    let setup = small::setup(graph.clone(), plan.clone());
    let scan = Scan::new(&graph, &plan, DType::F32, &setup.optimizer);
    let total = |address: &Address| scan.actor(*address, &Loads::Worst).total();
    let ranks = Address::all(&plan.mesh);
    let most = ranks.chunks(2).map(|rank| rank.iter().map(total).sum::<u64>()).max().unwrap();
    let run = |device: u64| {
        let graph = small::graph(&small::decoder());
        let setup = small::setup(graph, plan.clone());
        let setup = Setup { machine: Some(machine(device)), ..setup };
        let mut cluster = Cluster::start(setup, small::Numbers::new(64)).unwrap();
        cluster.step().and_then(|_| cluster.step()).map(|report| report.loss)
    };
    assert!(run(most).unwrap().is_finite());
    let error = run(most / 2).unwrap_err();
    let RunError::Memory { actor, action, class, held, limit, .. } = &error else {
        panic!("{error}")
    };
    assert!(actor.contains("stage") || actor.contains("experts"), "{actor}");
    assert!(!action.is_empty() && *limit == most / 2 && held > limit, "{error}");
    assert!(error.to_string().contains(&format!("{class:?} grew by")), "{error}");
}
