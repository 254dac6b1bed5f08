//! Small scans by hand, and the tables of the K2 report's model.

use ops::{CrossEntropy, Embedding, Op, optim::MuonClip};

use super::*;
use crate::{
    Decoder, PlanSpec,
    decoder::tests::{kimi_k2, nano},
    lower,
    plan::{Batch, Instruction},
    policy::{self, Fp8, Recompute, Store},
    schedule::{Interleaved, Schedule},
    source::{GraphSource, Input, Item, NodeSource},
    spec::WeightGrad,
    timeline::{Kind, Lane, Span, Task},
};

fn optimizer() -> Optimizer {
    Optimizer::MuonClip(MuonClip::default())
}

fn graph(decoder: &Decoder) -> ModelGraph {
    ModelGraph::new(&decoder.expand()).unwrap()
}

fn batch(sequences: usize, context: usize, lanes: usize) -> Batch {
    Batch { sequences, context, microbatch: 1, lanes: Some(lanes) }
}

fn on(mesh: Mesh) -> PlanSpec {
    PlanSpec { mesh, ..PlanSpec::default() }
}

fn stage(stage: usize) -> Address {
    Address { replica: 0, stage, rank: 0, side: Side::Stage }
}

/// An embedding and a head of 8 tokens and width 2.
fn two_nodes() -> ModelGraph {
    let embedding = Op::Embedding(Embedding { vocab: 8, width: 2, init_std: 0.1 });
    let head = CrossEntropy { width: 2, vocab: 8, chunk: 8, init_std: 0.1 };
    let nodes = vec![
        Item::Node(NodeSource::new("embed", embedding, &["tokens"])),
        Item::Node(NodeSource::new("head", Op::CrossEntropy(head), &["embed", "targets"])),
    ];
    let blocks = Default::default();
    ModelGraph::new(&GraphSource { input: Input::default(), blocks, nodes }).unwrap()
}

#[test]
fn two_nodes_by_hand() {
    let graph = two_nodes();
    let plan = lower(&graph, &on(Mesh::default()), batch(2, 3, 1)).unwrap();
    let (optimizer, mut after) = (optimizer(), Vec::new());
    let scan = Scan::new(&graph, &plan, DType::F32, &optimizer);
    let actor = scan.follow(stage(0), &Loads::Balanced, &mut |bytes| after.push(*bytes));
    let (x, dlogits, weights) = (3 * 2 * 4, 3 * 8 * 4, 2 * 8 * 2 * 4);
    assert_eq!(actor.fixed.parameters, weights);
    assert_eq!(actor.fixed.states, 2 * (2 * 16 + 1) * 4, "AdamW: two moments and a count");
    assert_eq!(actor.fixed.inputs, 2 * 2 * 3 * 4);
    let levels = [
        Level { high: x + dlogits, after: x + dlogits },
        Level { high: 2 * x + dlogits, after: 2 * x + dlogits },
        Level { high: 2 * x + dlogits + weights, after: weights },
        Level { high: weights + x + dlogits, after: weights + x + dlogits },
        Level { high: weights + 2 * x + dlogits, after: weights + 2 * x + dlogits },
        Level { high: weights + 2 * x + dlogits, after: weights },
    ];
    assert_eq!(actor.levels, levels);
    assert_eq!((actor.peak.instruction, actor.peak.bytes), (2, weights + 2 * x + dlogits));
    assert_eq!(after[1].get(Class::ActivationGradients), x);
    let classes: Vec<Class> = actor.alive.iter().map(|alive| alive.class).collect();
    let expected =
        [Class::WeightGradients, Class::Logits, Class::Residual, Class::ActivationGradients];
    assert_eq!(classes, expected);
}

#[test]
fn all_is_free_at_the_end_but_the_sums_of_gradients() {
    for schedule in Schedule::ALL {
        let vpp = schedule.virtual_stages().unwrap_or(2);
        let spec =
            PlanSpec { schedule: Some(schedule.clone()), ..on(Mesh { pp: 2, vpp, ep: 2, dp: 1 }) };
        let graph = graph(&nano());
        let plan = lower(&graph, &spec, batch(16, 16, 4)).unwrap();
        let optimizer = optimizer();
        let scan = Scan::new(&graph, &plan, DType::Bf16, &optimizer);
        for address in Address::all(&plan.mesh) {
            let mut last = Bytes::default();
            scan.follow(address, &Loads::Worst, &mut |bytes| last = *bytes);
            let sums = last.get(Class::WeightGradients);
            assert_eq!(last.total(), sums, "{}: {address}", schedule.name());
            let held = address.lanes(&plan.mesh, &plan.batch).len() as u64;
            let program = &plan.programs[address.stage][address.side as usize];
            assert_eq!(sums == 0, program.instructions.is_empty());
            assert!(sums.is_multiple_of(held), "{sums} bytes in {held} lanes");
        }
    }
}

#[test]
fn fewer_microbatches_in_flight_hold_less() {
    let graph = graph(&nano());
    let peak = |schedule| {
        let spec = PlanSpec {
            schedule: Some(schedule),
            weight_grad: Some(WeightGrad::Joined),
            ..on(Mesh { pp: 4, ..Mesh::default() })
        };
        let plan = lower(&graph, &spec, batch(16, 64, 1)).unwrap();
        let memory = scan(&graph, &plan, DType::F32, &optimizer(), &Loads::Balanced);
        let of = |actor: &ActorMemory, class| {
            actor.alive.iter().find(|alive| alive.class == class).map_or(0, |it| it.flights)
        };
        let norms = of(&memory.actors[0][0], Class::NormOutput);
        (memory.largest(), norms)
    };
    let (all, few) = (peak(Schedule::GPipe), peak(Schedule::OneFOneB));
    assert!(few.0 < all.0, "{few:?} {all:?}");
    assert_eq!((all.1, few.1), (16, 4), "GPipe holds all microbatches, 1F1B one for each stage");
}

#[test]
fn advice_finds_the_schedule_that_holds_less_and_says_what_it_saves() {
    let graph = graph(&nano());
    let mesh = Mesh { pp: 2, ..Mesh::default() };
    let spec = PlanSpec { schedule: Some(Schedule::GPipe), ..on(mesh) };
    let batch = batch(16, 64, 1);
    let advice = advice(&graph, &spec, batch, DType::F32, &optimizer(), false).unwrap();
    let here = advice.iter().take_while(|it| it.ranks == 2).count();
    assert!(advice[..here].windows(2).all(|pair| pair[0].saves >= pair[1].saves));
    assert!(advice[here..].iter().all(|it| it.ranks > 2), "what needs no rank comes first");
    let change = Change::Schedule(Schedule::OneFOneB);
    let found = advice.iter().find(|it| it.change == change).unwrap();
    let spec = PlanSpec { schedule: Some(Schedule::OneFOneB), ..spec };
    let plan = lower(&graph, &spec, batch).unwrap();
    let memory = scan(&graph, &plan, DType::F32, &optimizer(), &Loads::Balanced);
    assert_eq!(found.bytes, memory.largest());
    assert!(advice.iter().any(|it| it.change == Change::Precision(DType::Bf16)));
    assert_eq!(found.change.to_string(), "schedule: OneFOneB");
}

#[test]
fn a_rank_needs_less_than_both_peaks_where_they_do_not_meet() {
    let graph = graph(&nano());
    let plan = lower(&graph, &on(Mesh::default()), batch(2, 16, 1)).unwrap();
    let memory = scan(&graph, &plan, DType::F32, &optimizer(), &Loads::Balanced);
    let [own, experts] = &memory.actors[0];
    // The experts work when the stage is done, which no real run does.
    let task = Task { kind: Kind::Forward, chunk: 0, segment: 0, microbatch: 0 };
    let span = |id: usize| {
        let start = id as f64;
        Span { id, lane: Lane::Compute, task, start, end: start + 1.0, wait: None }
    };
    let spans = (0..own.levels.len() + experts.levels.len()).map(span).collect();
    let apart = memory.rank_in(&plan, &Timeline { ranks: vec![spans] }, 0);
    let left = own.levels.last().unwrap().after;
    let moving = own.peak.bytes.max(left + experts.peak.bytes);
    let still = memory.rank(0) - own.peak.bytes - experts.peak.bytes;
    assert_eq!(apart, still + moving);
    assert!(apart < memory.rank(0));
}

/// What each class holds for one unit between `F` and `I`, on all sides of one rank.
fn after_forward(decoder: &Decoder, layers: usize, policies: &PlanSpec) -> Bytes {
    let graph = graph(&Decoder { layers, ..decoder.clone() });
    let plan = lower(&graph, policies, batch(1, 4096, 1)).unwrap();
    let optimizer = optimizer();
    let scan = Scan::new(&graph, &plan, DType::Bf16, &optimizer);
    let mut sum = Bytes::default();
    for side in [Side::Stage, Side::Experts] {
        let program = &plan.programs[0][side as usize].instructions;
        let backward = |it: &Instruction| {
            matches!(it, Instruction::BackwardInput { .. } | Instruction::Restore { .. })
        };
        let forward =
            |it: &Instruction| matches!(it, Instruction::Forward { .. } | Instruction::Send { .. });
        let begin = program.iter().position(backward).unwrap();
        let done = 1 + program[..begin].iter().rposition(forward).unwrap();
        let mut after = Vec::new();
        scan.follow(Address { side, ..stage(0) }, &Loads::Balanced, &mut |it| after.push(*it));
        sum.add(&after[done - 1]);
    }
    sum
}

/// What one layer with experts holds.
fn layer_of(decoder: &Decoder, policies: &PlanSpec) -> Bytes {
    let mut layer = after_forward(decoder, 3, policies);
    layer.subtract(&after_forward(decoder, 2, policies));
    layer
}

#[test]
fn a_moe_layer_of_k2_holds_what_its_report_lets_one_reckon() {
    let policies = on(Mesh::default());
    let layer = layer_of(&kimi_k2(), &policies);
    let per_token = |class| layer.get(class) as f64 / 4096.0;
    for (class, bytes) in [
        (Class::Residual, 2 * 14_336),
        (Class::NormOutput, 28_672 + 4_096),
        // 4,224 with the rotary key, which attention reads and which counts there.
        (Class::Latent, 4_096),
        // 65,536 where the rotary key is copied for each of 64 heads; here they share one.
        (Class::AttentionInput, 65_536 - 64 * 64 * 2 + 64 * 2),
        (Class::AttentionOutput, 16_384),
        (Class::MoeUpInput, 114_688),
        (Class::MoeSwiGluInput, 65_536),
        (Class::MoeDownInput, 32_768),
        (Class::MoeDownOutput, 114_688),
        (Class::MoeWeighed, 0),
        (Class::SwiGluInput, 8_192),
        (Class::SwiGluOutput, 4_096),
        (Class::BranchOutput, 0),
        (Class::Logits, 0),
    ] {
        assert_eq!(per_token(class), f64::from(bytes), "{class:?}");
    }
    assert_eq!(layer.get(Class::Routing), ROUTING);
    assert_eq!(layer.get(Class::Statistics), STATISTICS);
    let total = layer.total() as f64 / 4096.0;
    let others = (ROUTING + STATISTICS) as f64 / 4096.0;
    assert!((total - (489_344.0 - 8_192.0 - 1_536.0 - 256.0 + others)).abs() < 1.0, "{total}");
}

/// Choice of eight experts in place of 384 scores, their shares where their rows are, and the
/// counts of a unit.
const ROUTING: u64 = 4096 * 2 * 8 * 4 + 384 * 4;

/// Log-sum-exp of 64 heads, chosen scores, four norms; two sums that count their inputs.
const STATISTICS: u64 = 4096 * (64 * 4 + 8 * 4 + 4 * 4) + 2 * 4;

/// All of K2's policies, on one rank.
fn k2_policies() -> PlanSpec {
    let tensors = vec![policy::Stored::MoeUpInput, policy::Stored::SwiGluInput];
    let store = Some(Store::Fp8(Fp8 { tensors, tile: policy::TILE }));
    PlanSpec { recompute: Recompute::ALL.to_vec(), store, ..on(Mesh::default()) }
}

#[test]
fn a_moe_layer_under_k2s_policies_holds_what_its_report_lets_one_reckon() {
    let policies = k2_policies();
    let layer = layer_of(&kimi_k2(), &policies);
    let per_token = |class| layer.get(class) as f64 / 4096.0;
    for (class, bytes) in [
        (Class::Residual, 28_672),
        (Class::NormOutput, 0),
        // With the rotary key 4,224.
        (Class::Latent, 4_096),
        (Class::AttentionInput, 128),
        (Class::AttentionOutput, 16_384),
        (Class::MoeUpInput, 59_136),
        (Class::MoeSwiGluInput, 33_792),
        (Class::MoeDownInput, 0),
        (Class::MoeDownOutput, 0),
        (Class::SwiGluInput, 4_224),
        (Class::SwiGluOutput, 0),
        (Class::BranchOutput, 0),
    ] {
        assert_eq!(per_token(class), f64::from(bytes), "{class:?}");
    }
    assert_eq!(layer.get(Class::Routing), ROUTING);
    assert_eq!(layer.get(Class::Statistics), STATISTICS);
    let total = layer.total() as f64 / 4096.0;
    let others = (ROUTING + STATISTICS) as f64 / 4096.0;
    assert!((total - (148_224.0 - 1_536.0 - 256.0 + others)).abs() < 1.0, "{total}");
}

#[test]
fn the_same_formulas_hold_for_a_layer_of_k2_mini() {
    let mini = Decoder {
        hidden: 512,
        heads: 8,
        q_rank: Some(192),
        kv_rank: 128,
        nope: 64,
        rope: 32,
        value: 64,
        experts: 32,
        experts_per_token: 4,
        expert_width: 256,
        dense_width: 1536,
        vocab: 8192,
        ..kimi_k2()
    };
    let layer = layer_of(&mini, &k2_policies());
    let per_token = |class| layer.get(class) as f64 / 4096.0;
    let stored = |width: usize| ops::stored_bytes(1, width) as usize;
    for (class, bytes) in [
        (Class::Residual, 2 * 2 * 512),
        (Class::NormOutput, 0),
        (Class::Latent, 2 * (192 + 128)),
        (Class::AttentionInput, 2 * 32),
        (Class::AttentionOutput, 2 * 8 * 64),
        (Class::MoeUpInput, 4 * stored(512)),
        (Class::MoeSwiGluInput, 4 * 2 * stored(256)),
        (Class::SwiGluInput, 2 * stored(256)),
        (Class::MoeDownInput, 0),
        (Class::MoeDownOutput, 0),
        (Class::SwiGluOutput, 0),
    ] {
        assert_eq!(per_token(class), bytes as f64, "{class:?}");
    }
}

#[test]
fn the_first_stage_of_k2_holds_48_chunks_of_activations() {
    let graph = graph(&kimi_k2());
    let plan = k2_plan(&graph, 16 * 64, 1);
    let memory = scan(&graph, &plan, DType::Bf16, &optimizer(), &Loads::Balanced);
    let chunks = |stage: usize| {
        let alive = &memory.actors[stage][Side::Stage as usize].alive;
        alive.iter().find(|it| it.class == Class::NormOutput).map(|it| it.flights)
    };
    assert_eq!((chunks(0), chunks(1), chunks(15)), (Some(48), Some(46), Some(18)));
}

fn k2_plan(graph: &ModelGraph, sequences: usize, dp: usize) -> Plan {
    let interleaved = Interleaved { extra_warmup: 1, split_backward: true, ..Interleaved::PLAIN };
    let spec = PlanSpec {
        schedule: Some(Schedule::Interleaved1F1B(interleaved)),
        ..on(Mesh { pp: 16, vpp: 2, ep: 16, dp })
    };
    lower(graph, &spec, batch(sequences, 4096, 16 * dp)).unwrap()
}

#[test]
fn parameters_and_gradients_of_k2_are_those_of_its_report() {
    let graph = graph(&kimi_k2());
    let plan = k2_plan(&graph, 16 * 32, 1);
    let memory = scan(&graph, &plan, DType::Bf16, &optimizer(), &Loads::Balanced);
    // The report's count leaves out the biases of 60 routers.
    let biases = 60 * 384;
    let (routed, rest) = (1_014_686_023_680_u64, 11_722_185_728_u64 + biases);
    let sum = |side: Side, of: &dyn Fn(&ActorMemory) -> u64| -> u64 {
        memory.actors.iter().map(|stage| of(&stage[side as usize])).sum()
    };
    let parameters = |side| sum(side, &|actor| actor.fixed.parameters);
    let sums = |side| {
        let last = |actor: &ActorMemory| actor.levels.last().map_or(0, |level| level.after);
        sum(side, &last)
    };
    assert_eq!(parameters(Side::Experts), routed * 2 / 16);
    // Norms and routers stay in F32: two bytes more for each of their values.
    let exact: u64 = graph
        .parameters()
        .iter()
        .filter(|it| it.format(DType::Bf16) == DType::F32)
        .map(|it| it.elements() as u64)
        .sum();
    assert_eq!(parameters(Side::Stage), rest * 2 + exact * 2);
    assert_eq!(sums(Side::Stage), (rest - biases) * 4);
    // Sixteen ranks send rows in lanes of their own, and each lane has a sum of its own.
    assert_eq!(sums(Side::Experts), 16 * (routed * 4 / 16));
    // Six bytes a parameter and a lane: 23.78 GB and 4.40 GB a rank on average.
    let gigabytes = |bytes: u64| bytes as f64 / 16.0 / 1e9;
    let experts = gigabytes(parameters(Side::Experts) + sums(Side::Experts) / 16);
    let own = gigabytes(parameters(Side::Stage) + sums(Side::Stage));
    assert!((experts - 23.78).abs() < 0.01, "{experts}");
    assert!((own - 4.40).abs() < 0.04, "{own}: routers are exact");
}

#[test]
fn a_long_step_is_scanned_by_its_few_kinds_of_flights() {
    let graph = graph(&kimi_k2());
    let (short, long) = (k2_plan(&graph, 16 * 128, 1), k2_plan(&graph, 16 * 1024, 1));
    let peak = |plan: &Plan| {
        let memory = scan(&graph, plan, DType::Bf16, &optimizer(), &Loads::Balanced);
        memory.actors.iter().flatten().map(|it| it.peak).collect::<Vec<_>>()
    };
    assert_eq!(peak(&short), peak(&long), "the steady state repeats");
}
