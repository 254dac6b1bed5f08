//! Simulated plans against bare orders, against sums by hand, and against what can never be.

use proptest::prelude::*;

use super::*;
use crate::{
    Decoder, ModelGraph, PlanSpec,
    bare::{Bare, Cell, Step},
    decoder::tests::{kimi_k2, nano},
    lower,
    mesh::Mesh,
    plan::{Batch, Cargo},
    price::{Parts, Way},
    schedule::Schedule,
    simulate::{Costs, chain, simulate},
    spec::WeightGrad,
};

fn graph(decoder: Decoder) -> ModelGraph {
    ModelGraph::new(&decoder.expand()).unwrap()
}

fn mesh(pp: usize, vpp: usize, ep: usize) -> Mesh {
    Mesh { pp, vpp, ep, dp: 1 }
}

/// A plan of the small model with so many microbatches.
fn lowered(spec: PlanSpec, microbatches: usize) -> Plan {
    let ranks = spec.mesh.data_ranks();
    let sequences = microbatches * ranks;
    let batch = Batch { sequences, context: 16, microbatch: 1, lanes: Some(ranks) };
    lower(&graph(nano()), &spec, batch).unwrap()
}

/// Prices by which each chunk costs the same, all of it at its last segment.
fn flat(plan: &Plan, costs: &Costs) -> Prices {
    let Costs { forward, input, weight, .. } = *costs;
    let whole = Parts { forward, input, weight, restore: 0.0 };
    let segments = plan.chunks.iter().map(|chunk| {
        let mut parts = vec![Parts::default(); chunk.segments.len()];
        *parts.last_mut().unwrap() = whole;
        parts
    });
    let visits = plan.chunks.iter().map(|chunk| vec![Parts::default(); chunk.visits.len()]);
    let ways = plan.channels.iter().map(|channel| Way {
        latency: if channel.cargo.fans_out() { 0.0 } else { costs.comm },
        ..Way::default()
    });
    Prices {
        segments: segments.collect(),
        visits: visits.collect(),
        copies: Vec::new(),
        ways: ways.collect(),
        reductions: Vec::new(),
        phases: vec![[Phase::default(); 2]; plan.mesh.pp],
        cores: None,
        model_flops: 1.0,
        peak: 1.0,
    }
}

fn bare(plan: &Plan) -> Bare {
    let row = |order: &Vec<crate::action::Action>| {
        let cells = order.iter().enumerate();
        cells.map(|(column, &action)| Cell { column, step: Step::Work(action) }).collect()
    };
    Bare::new(plan.orders.iter().map(row).collect()).unwrap()
}

fn with_credits(mut plan: Plan) -> Plan {
    plan.channels.iter_mut().for_each(|channel| channel.credits = 1 << 10);
    plan
}

#[test]
fn plans_of_every_schedule_take_as_long_as_their_orders() {
    let none = Conditions::default();
    for schedule in Schedule::ALL {
        for (pp, microbatches) in [(2, 4), (4, 8)] {
            let vpp = schedule.virtual_stages().unwrap_or(2);
            let mesh = mesh(pp, vpp, 1);
            let spec = PlanSpec { mesh, schedule: Some(schedule.clone()), ..PlanSpec::default() };
            let plan = with_credits(lowered(spec, microbatches));
            for comm in [0.0, 0.25] {
                let costs = Costs {
                    forward: 1.0,
                    input: 1.5,
                    weight: 0.75,
                    comm,
                    handling: 0.0,
                    pair: None,
                };
                let expected = simulate(&bare(&plan), &costs).unwrap();
                let got = outcome(&plan, &flat(&plan, &costs), &none).unwrap();
                let label = format!("{schedule:?} {pp} {microbatches} {comm}");
                assert_eq!(got.program, expected.makespan, "{label}");
                let busy: Vec<f64> = got.ranks.iter().map(|rank| rank.busy).collect();
                let own = expected.idle.iter().map(|idle| expected.makespan - idle);
                assert!(busy.iter().copied().eq(own), "{label}: {busy:?}");
            }
        }
    }
}

/// All that holds for any simulated step.
fn check(plan: &Plan, prices: &Prices, conditions: &Conditions) -> Simulated {
    let simulated = super::plan(plan, prices, conditions).unwrap();
    let Simulated { timeline, outcome } = &simulated;
    // On shared cores another copy than the one shown may end last.
    assert!(timeline.makespan() <= outcome.makespan);
    for (stage, rank) in outcome.ranks.iter().enumerate() {
        let idle: f64 = rank.idle.values().sum();
        let error = (rank.busy + idle - outcome.makespan).abs();
        assert!(error < 1e-9 * outcome.makespan, "rank {stage}: {rank:?}");
        let ids: Vec<usize> = timeline.ranks[stage].iter().map(|span| span.id).collect();
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ids.len());
        for span in &timeline.ranks[stage] {
            assert!(span.start <= span.end, "{span:?}");
            assert!(span.wait.is_none_or(|wait| wait.since < span.start), "{span:?}");
        }
    }
    if prices.cores.is_none() {
        assert_eq!(timeline.makespan(), outcome.makespan);
        let links = chain(timeline, &outcome.chain);
        let sum: f64 = links.iter().map(|link| link.seconds).sum();
        assert!((sum - outcome.makespan).abs() < 1e-9 * outcome.makespan, "{links:?}");
    }
    simulated
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn busy_and_idle_add_up_and_the_chain_explains_the_whole_step(
        pp in 1_usize..4, ep in 1_usize..3, late in 0_usize..3, microbatches in 1_usize..5,
        cores in 0_usize..4, jitter in 0_u32..3, seed: u64,
    ) {
        let weight_grad = Some(WeightGrad::Late(late));
        let spec = PlanSpec { mesh: mesh(pp, 1, ep), weight_grad, ..PlanSpec::default() };
        let plan = lowered(spec, microbatches);
        let costs = Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.125, handling: 0.0, pair: None };
        let mut prices = flat(&plan, &costs);
        prices.visits.iter_mut().flatten().for_each(|parts| {
            *parts = Parts { forward: 0.5, input: 0.25, weight: 0.125, restore: 0.0 };
        });
        prices.ways.iter_mut().for_each(|way| way.occupies = [0.0625, 0.03125]);
        prices.cores = Some(cores).filter(|&cores| cores > 0);
        let slow = [(pp - 1, 1.5)].into();
        let conditions = Conditions { slow, jitter: f64::from(jitter) * 0.1, seed };
        let one = check(&plan, &prices, &conditions);
        prop_assert_eq!(&one, &check(&plan, &prices, &conditions));
    }
}

#[test]
fn a_message_takes_its_link_and_arrives_a_latency_later() {
    let plan = lowered(PlanSpec { mesh: mesh(2, 1, 1), ..PlanSpec::default() }, 2);
    let costs =
        Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
    let mut prices = flat(&plan, &costs);
    for (channel, way) in plan.channels.iter().zip(&mut prices.ways) {
        if matches!(channel.cargo, Cargo::Activations { .. }) {
            *way = Way { occupies: [0.0, 3.0], latency: 0.5, ..Way::default() };
        }
    }
    // Rank 0 sends at 1 and 2; the second message waits for the link until 4 and arrives at 7.5.
    // Rank 1: F0 from 4.5, B0 to 7.5, F1 from 7.5, B1 to 10.5; rank 0 ends with B1 at 12.5.
    let Simulated { timeline, outcome } = check(&plan, &prices, &Conditions::default());
    assert_eq!(outcome.program, 12.5);
    let sends = timeline.ranks[0].iter().filter(|span| span.task.kind == Kind::Activations);
    assert!(sends.map(|span| (span.start, span.end)).eq([(1.0, 4.0), (4.0, 7.0)]));
    assert_eq!(outcome.ranks[1].idle[&Cause::WarmUp], 4.5);
    assert_eq!(outcome.ranks[1].idle[&Cause::CoolDown], 2.0);
    assert_eq!(outcome.ranks[0].sending, 6.0);
}

#[test]
fn a_sender_without_a_credit_waits_until_the_receiver_takes() {
    let spec =
        PlanSpec { mesh: mesh(2, 1, 1), schedule: Some(Schedule::GPipe), ..PlanSpec::default() };
    let mut plan = lowered(spec, 4);
    plan.channels.iter_mut().for_each(|channel| channel.credits = 1);
    let costs =
        Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
    let mut prices = flat(&plan, &costs);
    prices.segments[1].last_mut().unwrap().forward = 5.0;
    let simulated = check(&plan, &prices, &Conditions::default());
    // Rank 1 takes microbatch 0 at 1 and 1 at 6, so rank 0 sends 2 at 6 and goes on with F3.
    let mut spans = simulated.timeline.ranks[0].iter();
    let is_last = |span: &&Span| span.task.kind == Kind::Forward && span.task.microbatch == 3;
    let last = spans.find(is_last).unwrap();
    assert_eq!((last.start, last.wait.unwrap().cause), (6.0, Cause::Credit));
}

#[test]
fn one_core_does_one_thing_at_a_time() {
    let plan = lowered(PlanSpec { mesh: mesh(2, 1, 2), ..PlanSpec::default() }, 3);
    let costs =
        Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
    let mut prices = flat(&plan, &costs);
    prices.cores = Some(1);
    // 2 stages, 2 expert ranks, 3 microbatches, 3 units of work each.
    let one = check(&plan, &prices, &Conditions::default()).outcome;
    assert_eq!(one.program, 36.0);
    prices.cores = Some(4);
    let four = check(&plan, &prices, &Conditions::default()).outcome;
    assert_eq!(four.program, 12.0);
    assert!(one.ranks[0].idle[&Cause::Core] > 0.0);
}

#[test]
fn a_slow_rank_costs_at_least_its_own_time() {
    let plan = lowered(PlanSpec { mesh: mesh(4, 1, 1), ..PlanSpec::default() }, 8);
    let costs =
        Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.0, handling: 0.0, pair: None };
    let prices = flat(&plan, &costs);
    let slow = Conditions { slow: [(2, 1.5)].into(), ..Conditions::default() };
    let [even, uneven] =
        [Conditions::default(), slow].map(|on| outcome(&plan, &prices, &on).unwrap());
    assert_eq!(even.program, 33.0);
    // The slow rank computes 36 units; what fills and drains around it is two stages of 3.
    assert!(uneven.program >= 36.0 + 6.0, "{uneven:?}");
    assert!(uneven.mfu < even.mfu);
}

#[test]
fn kimi_k2_with_a_thousand_microbatches_is_simulated() {
    let spec = PlanSpec { mesh: mesh(16, 2, 16), ..PlanSpec::default() };
    let batch = Batch { sequences: 64 * 16, context: 4096, microbatch: 1, lanes: None };
    let plan = lower(&graph(kimi_k2()), &spec, batch).unwrap();
    let prices = flat(
        &plan,
        &Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.1, handling: 0.0, pair: None },
    );
    let simulated = check(&plan, &prices, &Conditions::default());
    assert_eq!(simulated.outcome.ranks.len(), 16);
}
