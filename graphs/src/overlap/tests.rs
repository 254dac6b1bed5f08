//! Counting by moments, and what pairs hide where messages take a third as long as computation.

use ops::DType;

use super::*;
use crate::{
    Decoder, ModelGraph, PlanSpec,
    cluster::{Cluster, Device, Link, Machine},
    decoder::tests::nano,
    lower,
    mesh::Mesh,
    plan::{Batch, Instruction},
    price::Prices,
    schedule::{Interleaved, Schedule},
    simulate,
    spec::{Overlap as Spec, Share, Stages},
};

#[test]
fn moments_count_once_and_are_hidden_by_any_computation() {
    let busy = Busy {
        computed: vec![(false, (0.0, 2.0)), (true, (3.0, 5.0)), (false, (4.0, 6.0))],
        travelled: vec![
            (Carried::Experts, (1.0, 4.0)),
            (Carried::Experts, (3.5, 4.5)),
            (Carried::Pipeline, (5.5, 8.0)),
        ],
    };
    let overlap = busy.overlap();
    assert_eq!(overlap.whole[&Carried::Experts], Travel { hidden: 2.5, exposed: 1.0 });
    assert_eq!(overlap.whole[&Carried::Pipeline], Travel { hidden: 0.5, exposed: 2.0 });
    assert_eq!(overlap.warm[&Carried::Experts], Travel { hidden: 1.5, exposed: 0.0 });
    assert_eq!(overlap.steady[&Carried::Pipeline], Travel { hidden: 0.5, exposed: 0.0 });
    assert!(!overlap.whole.contains_key(&Carried::Copies));
    let twice = Overlap::sum([overlap.clone(), overlap.clone()]);
    assert_eq!(twice.whole[&Carried::Experts], Travel { hidden: 5.0, exposed: 2.0 });
    assert_eq!(twice.whole[&Carried::Experts].part_hidden(), 5.0 / 7.0);
}

/// Ranks with cores of their own, and a link of so many bytes a second.
fn machine(each: f64) -> Cluster {
    let core = Device {
        name: "core".into(),
        memory: u64::MAX,
        bf16: 1e10,
        f32: 1e10,
        bandwidth: f64::INFINITY,
        launch: 0.0,
        achieved: 1.0,
    };
    let link = Some(Link { each, latency: 1e-6 });
    let (message, latency) = (0.0, 0.0);
    let (host, device) = (None, None);
    Cluster::Machine(Machine { cores: 2, core, message, latency, link, host, device, apart: true })
}

fn prices(graph: &ModelGraph, plan: &Plan, each: f64) -> Prices {
    Prices::new(graph, plan, &machine(each), DType::F32, None)
}

/// Bytes a second at which the messages of the busiest rank take a third of its computation.
fn third(graph: &ModelGraph, plan: &Plan) -> f64 {
    let prices = prices(graph, plan, 1.0);
    let mut ranks = vec![(0.0, 0.0); plan.mesh.pp];
    for (_, stage, side, instruction) in plan.numbered() {
        let (computed, sent) = &mut ranks[stage];
        match instruction {
            Instruction::Send { channel, .. } => *sent += prices.ways[channel].occupies[1],
            Instruction::Forward { chunk, segment, .. } => {
                *computed += prices.parts(side, chunk, segment).sum();
            }
            _ => {}
        }
    }
    let ratio = |(computed, sent): &(f64, f64)| sent / computed;
    3.0 * ranks.iter().map(ratio).fold(0.0, f64::max)
}

fn measured(spec: &PlanSpec) -> (Overlap, f64) {
    let decoder = Decoder { layers: 8, dense_layers: 0, ..nano() };
    let graph = ModelGraph::new(&decoder.expand()).unwrap();
    let ranks = spec.mesh.data_ranks();
    let batch = Batch { sequences: 16 * ranks, context: 256, microbatch: 1, lanes: Some(ranks) };
    let plan = lower(&graph, spec, batch).unwrap();
    let each = third(&graph, &plan);
    let prices = prices(&graph, &plan, each);
    let simulated = simulate::plan(&plan, &prices, &Default::default()).unwrap();
    let overlap = Overlap::sum(Overlap::of_timeline(&plan, &simulated.timeline));
    (overlap, simulated.outcome.program * plan.mesh.pp as f64)
}

#[test]
fn pairs_hide_what_travels_in_the_steady_phase() {
    let rule = Interleaved { extra_warmup: 1, split_backward: true, ..Interleaved::PLAIN };
    let plain = PlanSpec {
        mesh: Mesh { pp: 2, vpp: 2, ep: 2, dp: 1 },
        schedule: Some(Schedule::Interleaved1F1B(rule)),
        stages: Stages::Explicit(vec![Share { layers: 2, with: Vec::new() }; 4]),
        ..PlanSpec::default()
    };
    let paired = PlanSpec { overlap: vec![Spec::ExpertAllToAll], ..plain.clone() };
    let (without, _) = measured(&plain);
    let (with, program) = measured(&paired);
    println!("{without:?}\n{with:?} of {program}");
    let experts = |overlap: &Overlap| overlap.steady[&Carried::Experts].part_hidden();
    assert!(experts(&with) >= 0.95, "{}", experts(&with));
    assert!(experts(&without) < 0.6, "{}", experts(&without));
    let exposed = with.warm[&Carried::Pipeline].exposed;
    assert!(exposed <= 0.01 * program, "{exposed} of {program}");
}
