//! A recorded step: everything that ran is in it, and recording changes no bit.

use graphs::{
    PlanSpec,
    mesh::Mesh,
    plan::{Instruction, Side},
    schedule::{Interleaved, Schedule},
    simulate::{self, Conditions},
};
use jobs::view::{
    late::{lateness, ratios},
    marks::Track,
    traced,
};
use runtime::{Cluster, Setup, report::Audit, trace::Recording};

use crate::small;

fn spec() -> PlanSpec {
    PlanSpec {
        mesh: Mesh { pp: 2, vpp: 2, ep: 2, dp: 1 },
        schedule: Some(Schedule::Interleaved1F1B(Interleaved::default())),
        ..PlanSpec::default()
    }
}

fn setup() -> Setup {
    let graph = small::graph(&small::decoder());
    let plan = small::plan(&graph, &spec());
    Setup { audit: true, ..small::setup(graph, plan) }
}

/// The hashes of three steps, the second of which is recorded if asked.
fn train(records: bool) -> (Vec<Audit>, Option<Recording>) {
    let mut cluster = Cluster::start(setup(), small::Numbers::new(64)).unwrap();
    let (mut audits, mut recording) = (Vec::new(), None);
    for step in 1..=3 {
        if records && step == 2 {
            cluster.record();
        }
        audits.push(cluster.step().unwrap().audit);
        recording = recording.or(cluster.recording());
    }
    (audits, recording)
}

#[test]
fn recording_changes_no_bit_and_nothing_is_kept_unasked() {
    let (with, recording) = train(true);
    let (without, nothing) = train(false);
    assert_eq!(with, without);
    assert_eq!(recording.unwrap().step, 2);
    assert_eq!(nothing, None);
}

#[test]
fn every_actor_notes_every_instruction_and_message_in_order() {
    let plan = setup().plan;
    let recording = train(true).1.unwrap();
    assert_eq!(recording.actors.len(), 2 * plan.mesh.ranks());
    for notes in &recording.actors {
        let side = if notes.experts { Side::Experts } else { Side::Stage };
        let program = &plan.programs[notes.stage][side as usize].instructions;
        assert_eq!(notes.instructions.len(), program.len());
        assert!(notes.instructions.iter().all(|(begin, end)| begin <= end));
        assert!(notes.instructions.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        let receives = program.iter().filter_map(|instruction| match instruction {
            Instruction::Receive { channel, .. } => Some(plan.channels[*channel].cargo),
            _ => None,
        });
        let senders = receives.map(|cargo| if cargo.fans_out() { plan.mesh.ep } else { 1 });
        assert_eq!(notes.arrivals.len(), senders.sum::<usize>());
        assert_eq!(notes.phase.len(), 3, "{:?}", notes.phase);
    }
}

#[test]
fn a_recorded_step_has_the_spans_of_its_plan_and_lateness_adds_up() {
    let Setup { plan, graph, .. } = setup();
    let recording = train(true).1.unwrap();
    let measured = traced::measured(&plan, &recording).timeline;
    let prices = traced::prices(&plan, &graph, &recording);
    let planned = simulate::plan(&plan, &prices, &Conditions::default()).unwrap().timeline;
    for (measured, planned) in measured.ranks.iter().zip(&planned.ranks) {
        let tasks = |spans: &[graphs::timeline::Span]| {
            let mut tasks: Vec<_> = spans.iter().map(|span| (Track::of(span), span.task)).collect();
            tasks.sort_unstable();
            tasks
        };
        assert_eq!(tasks(measured), tasks(planned));
    }
    let late = lateness(&planned, &measured);
    assert_eq!(late.len(), measured.ranks.iter().map(Vec::len).sum::<usize>());
    for it in &late {
        let span = measured.ranks[it.rank][it.place];
        let matching = planned.ranks[it.rank].iter();
        let matching =
            matching.filter(|own| (own.task, Track::of(own)) == (span.task, Track::of(&span)));
        let ends: Vec<f64> = matching.map(|own| own.end).collect();
        assert_eq!(ends.len(), 1, "{span:?}");
        assert!((it.total() - (span.end - ends[0])).abs() < 1e-9, "{it:?}");
    }
    // Planned lengths are means of the measured ones, kind by kind.
    for (kind, ratio) in ratios(&planned, &measured) {
        if !matches!(Track::of(&measured_span(&measured, kind)), Track::Communication) {
            assert!(
                (ratio.planned - ratio.measured).abs() <= 1e-6 + 0.01 * ratio.measured,
                "{kind:?} {ratio:?}"
            );
        }
    }
}

fn measured_span(
    measured: &graphs::timeline::Timeline,
    kind: graphs::timeline::Kind,
) -> graphs::timeline::Span {
    let mut spans = measured.ranks.iter().flatten();
    *spans.find(|span| span.task.kind == kind).expect("the kind was measured")
}
