//! Plans of small and large models, and what is said of those that cannot be.

use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::{
    Decoder,
    decoder::tests::{kimi_k2, nano},
    mesh::Mesh,
    plan::{Instruction, Side},
    schedule::{Interleaved, Schedule},
    spec::{Communicators, Credits, Overlap, Share, Stages, WeightGrad},
};

fn graph(decoder: Decoder) -> ModelGraph {
    ModelGraph::new(&decoder.expand()).unwrap()
}

fn batch(sequences: usize, lanes: usize) -> Batch {
    Batch { sequences, context: 16, microbatch: 1, lanes: Some(lanes) }
}

fn on(mesh: Mesh) -> PlanSpec {
    PlanSpec { mesh, ..PlanSpec::default() }
}

fn mistakes(spec: &PlanSpec, batch: Batch) -> Vec<String> {
    let errors = lower(&graph(nano()), spec, batch).unwrap_err();
    let line = |error: &PlanError| {
        format!("{} {}: {error}; {}", error.code(), error.path(), error.help().unwrap_or_default())
    };
    errors.iter().map(line).collect()
}

#[test]
fn numbers_that_do_not_fit_are_all_named_with_the_nearest_that_do() {
    let mesh = Mesh { pp: 16, vpp: 1, ep: 3, dp: 1 };
    assert_eq!(
        mistakes(&on(mesh), batch(8, 4)),
        [
            "P104 plan.mesh.ep: 16 experts do not divide over ep = 3; nearest degrees that \
             divide: 2, 4",
            "P105 batch: 8 sequences do not divide over microbatch * dp * ep = 1 * 1 * 3; \
             nearest batches that divide: 6, 9 sequences",
            "P106 lanes: 4 lanes do not divide over dp * ep = 3; nearest numbers of lanes that \
             divide: 3, 6",
            "P101 plan.mesh.pp: pp * vpp = 16 chunks, but the model can be cut into at most 10; \
             pp * vpp may be up to 10; half layers are counted already",
        ]
    );
    let mesh = Mesh { pp: 0, vpp: usize::MAX, ep: 1, dp: 1 };
    assert_eq!(
        mistakes(&on(mesh), batch(8, 4)),
        [
            "P100 plan.mesh.pp: `plan.mesh.pp` is 0; expected 1 to 1048576; ".to_string(),
            format!(
                "P100 plan.mesh.vpp: `plan.mesh.vpp` is {}; expected 1 to 1048576; ",
                usize::MAX
            ),
        ]
    );
    assert_eq!(
        mistakes(&on(Mesh::default()), batch(8, 3)),
        ["P107 batch: 8 sequences in units of 1 do not fill 3 lanes evenly; nearest batches \
             that do: 6, 9 sequences"]
    );
}

#[test]
fn schedules_that_do_not_know_the_pipeline_say_what_they_need() {
    let mesh = Mesh { pp: 2, vpp: 2, ep: 1, dp: 1 };
    let gpipe = PlanSpec { schedule: Some(Schedule::GPipe), ..on(mesh) };
    assert_eq!(
        mistakes(&gpipe, batch(8, 1)),
        ["P102 plan.mesh.vpp: GPipe needs vpp = 1, got vpp = 2; take Interleaved1F1B, or vpp: 1"]
    );
    let dual = PlanSpec { schedule: Some(Schedule::DualPipeV), ..on(mesh) };
    assert_eq!(
        mistakes(&dual, batch(3, 1)),
        ["P112 batch: DualPipeV needs at least 4 microbatches, got 3; "]
    );
    let flat = PlanSpec { mesh: Mesh { vpp: 1, ..mesh }, ..dual };
    assert_eq!(
        mistakes(&flat, batch(8, 1)),
        ["P102 plan.mesh.vpp: DualPipeV needs vpp = 2, got vpp = 1; write vpp: 2"]
    );
    let zero = PlanSpec { schedule: Some(Schedule::InterleavedZeroBubble), ..on(mesh) };
    assert_eq!(
        mistakes(&zero, batch(5, 1)),
        ["P103 batch: 5 microbatches do not fall into groups of 2 over 2 stages; microbatches \
             that would do: 4, 6"]
    );
    assert_eq!(
        mistakes(&on(mesh), batch(5, 1)),
        ["P103 batch: 5 microbatches do not fall into groups of 2 over 2 stages; microbatches \
             that would do: 4, 6; groups that would: 3, 5"]
    );
}

#[test]
fn one_stage_computes_everything_and_asks_only_the_experts() {
    let plan = lower(&graph(nano()), &on(Mesh::default()), batch(2, 1)).unwrap();
    let chunk = &plan.chunks[0];
    assert_eq!((chunk.segments.len(), chunk.visits.len()), (4, 3));
    assert_eq!(plan.channels.len(), 12);
    let sides: usize = chunk.visits.iter().map(|visit| visit.nodes.len()).sum();
    let own: usize = chunk.segments.iter().map(Vec::len).sum();
    assert_eq!((sides, own + sides), (15, graph(nano()).len()));
}

#[test]
fn experts_are_spread_over_their_ranks() {
    let mesh = Mesh { ep: 4, ..Mesh::default() };
    let plan = lower(&graph(nano()), &on(mesh), batch(8, 4)).unwrap();
    let visit = &plan.chunks[0].visits[0];
    let ops::Op::GroupedLinear(ref own) = visit.nodes[0].1 else { panic!("{visit:?}") };
    assert_eq!((visit.experts, own.experts), (16, 4));
}

#[test]
fn joined_weight_gradients_hold_the_input_gradient_back_and_early_ones_do_not() {
    let mesh = Mesh { pp: 2, ..Mesh::default() };
    let tail = |when| {
        let spec = PlanSpec { weight_grad: Some(when), ..on(mesh) };
        let plan = lower(&graph(nano()), &spec, batch(1, 1)).unwrap();
        *plan.programs[1][Side::Stage as usize].instructions.last().unwrap()
    };
    assert!(matches!(tail(WeightGrad::Joined), Instruction::Send { .. }));
    let early = Instruction::BackwardWeight { chunk: 1, segment: 0, microbatch: 0 };
    assert_eq!(tail(WeightGrad::Early), early);
}

#[test]
fn chunks_that_are_neighbours_on_one_stage_need_no_channel() {
    let mesh = Mesh { vpp: 4, ..Mesh::default() };
    let plan = lower(&graph(nano()), &on(mesh), batch(3, 1)).unwrap();
    assert!(plan.channels.iter().all(|channel| channel.cargo.fans_out()));
}

#[test]
fn a_trillion_parameters_are_lowered_on_paper() {
    let graph = graph(kimi_k2());
    let interleaved = Interleaved { extra_warmup: 1, split_backward: true, ..Interleaved::PLAIN };
    let spec = PlanSpec {
        schedule: Some(Schedule::Interleaved1F1B(interleaved)),
        ..on(Mesh { pp: 16, vpp: 2, ep: 16, dp: 1 })
    };
    let batch = Batch { sequences: 1024, context: 4096, microbatch: 1, lanes: Some(16) };
    let plan = lower(&graph, &spec, batch).unwrap();
    assert_eq!(plan.chunks.len(), 32);
    assert_eq!(plan.orders[0].len(), 64 * 2 * 3);
    let first = |stage: usize| plan.orders[stage].iter().position(|a| a.work.letter() == 'I');
    assert_eq!(first(0), Some(2 * 15 + 16 + 1 + 1));
    let most = plan.channels.iter().map(|channel| channel.credits).max().unwrap();
    assert!(most <= 8, "{most} credits");
}

#[test]
fn a_plan_spec_reads_as_a_job_writes_it() {
    let text = r#"{
        "mesh": {"pp": 2, "vpp": 2, "ep": 2},
        "schedule": {"Interleaved1F1B": {"extra_warmup": 1, "split_backward": true}},
        "weight_grad": {"Late": 3},
        "credits": {"Fixed": 2},
        "communicators": "PerPair"
    }"#;
    let spec: PlanSpec = serde_json::from_str(text).unwrap();
    assert_eq!(spec.mesh, Mesh { pp: 2, vpp: 2, ep: 2, dp: 1 });
    assert_eq!(spec.weight_grad(), WeightGrad::Late(3));
    assert_eq!((spec.credits, spec.communicators), (Credits::Fixed(2), Communicators::PerPair));
    assert_eq!(PlanSpec { weight_grad: None, ..spec.clone() }.weight_grad(), WeightGrad::Early);
    let again = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<PlanSpec>(&again).unwrap(), spec);
    assert!(serde_json::from_str::<PlanSpec>(r#"{"mesh": {"ppp": 2}}"#).is_err());
    assert!(serde_json::from_str::<PlanSpec>(r#"{"mash": {}}"#).is_err());
}

#[test]
fn explicit_stages_hold_what_they_say() {
    let share = |layers| Share { layers, with: vec![] };
    let stages = Stages::Explicit(vec![share(1), share(3)]);
    let spec = PlanSpec { stages, ..on(Mesh { pp: 2, ..Mesh::default() }) };
    let graph = graph(nano());
    let plan = lower(&graph, &spec, batch(2, 1)).unwrap();
    assert_eq!(graph.node(plan.chunks[1].nodes.start).name, "model.layers.1.input_layernorm");
}

fn wired(
    schedule: Schedule,
    mesh: Mesh,
    credits: Credits,
    communicators: Communicators,
) -> Result<Plan, Vec<PlanError>> {
    let spec = PlanSpec { schedule: Some(schedule), credits, communicators, ..on(mesh) };
    lower(&graph(nano()), &spec, batch(2 * mesh.chunks(), 1))
}

#[test]
fn credits_are_as_few_as_can_be_or_as_many_as_asked_for() {
    let mesh = Mesh { pp: 4, vpp: 2, ep: 1, dp: 1 };
    let lowered =
        |credits| wired(Schedule::InterleavedZeroBubble, mesh, credits, Communicators::PerEdge);
    let most = |credits| {
        let plan = lowered(credits).unwrap();
        plan.channels.iter().map(|channel| channel.credits).max().unwrap()
    };
    assert_eq!(most(Credits::Least { slack: 0 }), 3);
    assert_eq!(most(Credits::Least { slack: 2 }), 5);
    assert_eq!(most(Credits::Fixed(7)), 7);
    let code = |credits| {
        let errors = lowered(credits).unwrap_err();
        errors.iter().map(|e| format!("{} {}", e.code(), e.path())).collect::<Vec<_>>()
    };
    assert_eq!(code(Credits::Fixed(1)), ["P122 plan.credits"]);
    assert_eq!(code(Credits::Fixed(0)), ["P123 plan.credits"]);
    assert_eq!(code(Credits::Fixed(usize::MAX)), ["P100 plan.credits"]);
    assert_eq!(code(Credits::Least { slack: usize::MAX }), ["P100 plan.credits"]);
}

#[test]
fn shared_communicators_suit_plans_whose_ends_issue_in_one_order() {
    let mesh = Mesh { pp: 2, vpp: 1, ep: 2, dp: 1 };
    let least = Credits::default();
    for communicators in [Communicators::PerPair, Communicators::One] {
        let filled = PlanSpec { schedule: Some(Schedule::GPipe), communicators, ..on(mesh) };
        lower(&graph(nano()), &filled, batch(8, 2)).unwrap();
        let alternating = PlanSpec { schedule: Some(Schedule::OneFOneB), ..filled };
        let errors = lower(&graph(nano()), &alternating, batch(8, 2)).unwrap_err();
        assert_eq!(errors[0].path(), "plan.communicators");
        let PlanError::Deadlock(ring) = &errors[0] else { panic!("{errors:?}") };
        assert_eq!(
            ring.story,
            [
                "stage 0 waits for the gradients of chunk 1 of microbatch 0 from stage 1, since \
                 stage 0 has issued the activations of chunk 0 of microbatch 1 earlier on the \
                 same communicator",
                "stage 1 waits for the activations of chunk 0 of microbatch 1 from stage 0, since \
                 stage 1 has issued the gradients of chunk 1 of microbatch 0 earlier on the same \
                 communicator",
                "no credit can break the ring: the ends of a communicator issue messages in \
                 different orders; a communicator for each channel (communicators: PerEdge) would",
            ]
        );
    }
    assert!(
        wired(Schedule::OneFOneB, Mesh { ep: 1, ..mesh }, least, Communicators::PerEdge).is_ok()
    );
}

#[test]
fn fewer_microbatches_than_stages_are_lowered_or_refused_with_numbers_that_would_do() {
    let graph = graph(nano());
    let (mut lowered, mut refused) = (0, 0);
    for schedule in Schedule::ALL {
        for (pp, microbatches) in (2..5).flat_map(|pp| (1..pp).map(move |few| (pp, few))) {
            let vpp = schedule.virtual_stages().unwrap_or(2);
            let mesh = Mesh { pp, vpp, ep: 1, dp: 1 };
            let spec = PlanSpec { schedule: Some(schedule.to_owned()), ..on(mesh) };
            match lower(&graph, &spec, batch(microbatches, 1)) {
                Ok(_) => lowered += 1,
                Err(errors) => {
                    let told = errors[0].to_string() + &errors[0].help().unwrap_or_default();
                    let numbers = ["needs at least", "that would do"];
                    assert!(numbers.iter().any(|words| told.contains(words)), "{told}");
                    refused += 1;
                }
            }
        }
    }
    assert!(lowered > 30 && refused > 5, "{lowered} lowered, {refused} refused");
}

fn schedules() -> impl Strategy<Value = Option<Schedule>> {
    let rule = (0..3_usize, any::<bool>()).prop_map(|(extra_warmup, split_backward)| {
        Schedule::Interleaved1F1B(Interleaved {
            extra_warmup,
            split_backward,
            ..Interleaved::PLAIN
        })
    });
    let plain = (0..Schedule::ALL.len()).prop_map(|which| Some(Schedule::ALL[which].clone()));
    prop_oneof![Just(None), plain, rule.prop_map(Some)]
}

fn weight_grads() -> impl Strategy<Value = Option<WeightGrad>> {
    prop_oneof![
        Just(None),
        Just(Some(WeightGrad::Joined)),
        Just(Some(WeightGrad::Early)),
        (0..6_usize).prop_map(|late| Some(WeightGrad::Late(late))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A failing case prints its values; the seed is stored beside this file.
    #[test]
    fn whatever_fits_is_lowered_to_a_plan_that_runs_and_computes_everything_once(
        pp in 1..5_usize,
        vpp in 1..3_usize,
        rounds in 1..4_usize,
        ep in prop_oneof![Just(1_usize), Just(2), Just(4)],
        schedule in schedules(),
        weight_grad in weight_grads(),
        overlap in subsequence(vec![Overlap::ExpertAllToAll, Overlap::GradReduce], 0..3),
    ) {
        let vpp = schedule.as_ref().and_then(Schedule::virtual_stages).unwrap_or(vpp);
        let mesh = Mesh { pp, vpp, ep, dp: 1 };
        let rounds = if schedule == Some(Schedule::DualPipeV) { rounds + 1 } else { rounds };
        let spec = PlanSpec { schedule, weight_grad, overlap, ..on(mesh) };
        let microbatches = pp * rounds;
        let plan = lower(&graph(nano()), &spec, batch(microbatches * ep, ep)).unwrap();
        let all = plan.programs.iter().flatten().flat_map(|program| &program.instructions);
        let forward = all.clone().filter(|it| matches!(it, Instruction::Forward { .. })).count();
        let parts = plan.chunks.iter().map(|chunk| chunk.segments.len() + chunk.visits.len());
        prop_assert_eq!(forward, parts.sum::<usize>() * microbatches);
        let sends = all.filter(|it| matches!(it, Instruction::Send { .. })).count();
        prop_assert_eq!(sends, plan.channels.len() * microbatches);
    }
}
