//! Prices against sums by hand and the published counts of Kimi K2.

use ops::{Linear, RmsNorm};

use super::*;
use crate::{
    Decoder, PlanSpec,
    cluster::{Gpus, Host, Link, Machine},
    decoder::tests::{kimi_k2, nano},
    lower,
    mesh::Mesh,
    model::Parameter,
    plan::{Batch, Cargo},
    spec::Zero,
};

fn h800() -> Gpus {
    Gpus {
        nodes: 32,
        gpus: 8,
        gpu: Device {
            name: "H800".into(),
            memory: 80 << 30,
            bf16: 989e12,
            f32: 67e12,
            bandwidth: 3.35e12,
            launch: 5e-6,
            achieved: 0.5,
        },
        inside: Link { each: 200e9, latency: 3e-6 },
        fabric: Link { each: 50e9, latency: 8e-6 },
        host: Host { memory: 2 << 40, link: 55e9 },
    }
}

fn machine() -> Machine {
    let core = Device { name: "core".into(), bf16: 1e10, f32: 1e10, bandwidth: 1e10, ..h800().gpu };
    let (link, host, device) = (None, None, None);
    Machine { cores: 2, core, message: 1e-5, latency: 2e-5, link, host, device, apart: false }
}

fn plan(decoder: Decoder, mesh: Mesh, context: usize) -> (ModelGraph, Plan) {
    let graph = ModelGraph::new(&decoder.expand()).unwrap();
    let ranks = mesh.data_ranks();
    let batch = Batch { sequences: 4 * ranks, context, microbatch: 1, lanes: Some(ranks) };
    let spec = PlanSpec { mesh, ..PlanSpec::default() };
    let plan = lower(&graph, &spec, batch).unwrap();
    (graph, plan)
}

fn k2() -> (ModelGraph, Plan) {
    plan(kimi_k2(), Mesh { pp: 16, vpp: 1, ep: 16, dp: 1 }, 4096)
}

fn way(plan: &Plan, prices: &Prices, is: impl Fn(Cargo) -> bool) -> Way {
    let channel = plan.channels.iter().position(|channel| is(channel.cargo)).unwrap();
    prices.ways[channel]
}

#[test]
fn the_model_flops_of_kimi_k2_are_six_times_its_active_parameters_and_attention() {
    let (graph, plan) = k2();
    let of_token = flops_of_step(&graph, plan.batch) / plan.batch.tokens() as f64;
    let attention = 3.0 * 4096.0 * 64.0 * (128.0 + 64.0 + 128.0) * 61.0;
    // 31.69B active parameters without the embedding, as published counts give them.
    let active = (of_token - attention) / 6.0;
    assert!((active / 31.69e9 - 1.0).abs() < 5e-4, "{active}");
}

#[test]
fn messages_of_kimi_k2_have_the_bytes_and_links_of_its_shapes() {
    let (graph, plan) = k2();
    let prices = Prices::new(&graph, &plan, &Cluster::Gpus(h800()), DType::Bf16, None);
    let activations = way(&plan, &prices, |cargo| matches!(cargo, Cargo::Activations { .. }));
    let token = 7168.0 * 2.0;
    assert_eq!(activations.bytes, 4096.0 * token);
    // Sixteen expert ranks fill two nodes, so the next stage stands on others.
    assert_eq!(activations.occupies, [0.0, 4096.0 * token / 50e9]);
    assert_eq!(activations.latency, 8e-6);
    let dispatch = way(&plan, &prices, |cargo| matches!(cargo, Cargo::Dispatch { .. }));
    assert_eq!(dispatch.bytes, 4096.0 * 8.0 * (token + 4.0) + 384.0 * 4.0);
    let part = dispatch.bytes / 16.0;
    assert_eq!(dispatch.occupies, [part * 7.0 / 200e9, part * 8.0 / 50e9]);
    let back = way(&plan, &prices, |cargo| matches!(cargo, Cargo::DispatchGradients { .. }));
    assert_eq!(back.bytes, 4096.0 * 8.0 * (token + 4.0));
    let inside = Cluster::Gpus(Gpus { gpus: 16, ..h800() });
    let prices = Prices::new(&graph, &plan, &inside, DType::Bf16, None);
    let dispatch = way(&plan, &prices, |cargo| matches!(cargo, Cargo::Dispatch { .. }));
    assert_eq!(dispatch.occupies, [part * 15.0 / 200e9, 0.0]);
}

#[test]
fn operators_take_the_longer_of_their_flops_and_their_bytes() {
    let (graph, plan) = plan(nano(), Mesh::default(), 256);
    let cluster = Cluster::Machine(machine());
    let device = cluster.device();
    let at = |plan: &Plan, profile: Option<&Profile>| {
        let pricing = Pricing {
            graph: &graph,
            plan,
            cluster: &cluster,
            device,
            dtype: DType::F32,
            profile,
            sources: 1,
            exchanged: Vec::new(),
            keepings: Default::default(),
        };
        let norm = Op::RmsNorm(RmsNorm { width: 256, eps: 1e-6 });
        let linear = Op::Linear(Linear { input: 256, output: 512, init_std: 0.02 });
        let flat = Prices::new(pricing.graph, plan, &cluster, DType::F32, profile);
        (pricing.priced(&norm, 256), pricing.priced(&linear, 256), flat.segments[0][0])
    };
    let (norm, linear, _) = at(&plan, None);
    assert_eq!(norm.forward, 5e-6 + 2.0 * 256.0 * 256.0 * 4.0 / 1e10);
    assert_eq!(linear.forward, 5e-6 + 2.0 * 256.0 * 256.0 * 512.0 / 5e9);
    assert_eq!(linear.weight, linear.forward);
    let op = Op::Linear(Linear { input: 256, output: 512, init_std: 0.02 });
    let sample = Sample {
        op,
        bf16: false,
        amount: 128,
        sequence: 256,
        forward: 1.0,
        input: 2.0,
        weight: 3.0,
    };
    let profile = Profile { samples: vec![sample], ..Profile::default() };
    let (other, measured, segment) = at(&plan, Some(&profile));
    assert_eq!(
        (other, measured),
        (norm, Parts { forward: 2.0, input: 4.0, weight: 6.0, restore: 0.0 })
    );
    assert!(segment.forward > 2.0, "other products follow the mean rate of their kind");
}

#[test]
fn a_rank_sends_its_part_of_gradients_momentum_updates_and_values() {
    let mesh = Mesh { pp: 1, vpp: 1, ep: 2, dp: 2 };
    let (graph, mut plan) = plan(nano(), mesh, 16);
    plan.zero = Zero::Stage1;
    let phases = |plan: &Plan| {
        Prices::new(&graph, plan, &Cluster::Gpus(h800()), DType::Bf16, None).phases[0]
    };
    let sum = |of_experts: bool, bytes: &dyn Fn(&Parameter) -> usize| -> f64 {
        let parameters = graph.parameters().iter();
        let wanted = parameters.filter(|parameter| parameter.expert.is_some() == of_experts);
        wanted.map(|parameter| bytes(parameter) as f64).sum()
    };
    let trained = |it: &Parameter| if it.spec.rule == Rule::Balance { 0 } else { it.elements() };
    let [stage, experts] = phases(&plan);
    // Each of four ranks computes one lane of everything that is not an expert's.
    assert_eq!(stage.reduce_bytes, 4.0 * sum(false, &trained) * 3.0 / 4.0);
    let value = |it: &Parameter| it.elements() * it.format(DType::Bf16).size();
    assert_eq!(stage.gather_bytes, sum(false, &value) * 3.0 / 4.0);
    // A group holds half of the experts, as does one other. It computes the lanes of two ranks,
    // so their sum goes on to the other and half of it comes back.
    let matrices = sum(true, &|it| it.elements());
    assert_eq!(experts.reduce_bytes, 4.0 * matrices / 2.0 * (1.0 + 0.5) / 2.0);
    assert_eq!(experts.gather_bytes, 2.0 * matrices / 2.0 / 2.0);
    // Half a matrix goes to the one that runs Newton-Schulz and comes back in BF16.
    assert_eq!(experts.exchange_bytes, (4.0 + 2.0) * matrices / 2.0 / 2.0 / 2.0);
    assert!(stage.exchange > 0.0 && experts.exchange > 0.0);
    assert!(stage.update > 0.0 && experts.update > 0.0);
    plan.zero = Zero::Owners;
    let [whole, _] = phases(&plan);
    assert_eq!((whole.exchange_bytes, whole.exchange), (0.0, 0.0));
    assert!(whole.reduce_bytes > stage.reduce_bytes, "the last of a chain sends to the owner");
    assert_eq!(muon_flops(2, 3), muon_flops(3, 2));
    assert_eq!(muon_flops(2, 3), 5.0 * (4.0 * 12.0 + 2.0 * 8.0));
}
