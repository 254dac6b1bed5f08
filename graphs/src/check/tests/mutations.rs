//! Every small change of a plan is caught, or is shown to change nothing.
//!
//! Two neighbouring instructions may change places without harm if the [`machine`] still comes to
//! its end, with the same sums. The checks must refuse just the swaps that do harm.

use proptest::prelude::*;

use super::*;
use crate::{
    check::tests::machine::{End, run},
    passes::credits,
    schedule::{Interleaved, Schedule},
    spec::{Communicators, Credits},
};

/// A lowered plan without slack.
fn made(schedule: Schedule, pp: usize, vpp: usize, microbatches: usize) -> Plan {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let spec = PlanSpec {
        mesh: Mesh { pp, vpp, ep: 2, dp: 1 },
        schedule: Some(schedule),
        credits: Credits::Least { slack: 0 },
        ..PlanSpec::default()
    };
    let batch = Batch { sequences: 2 * microbatches, context: 16, microbatch: 1, lanes: Some(2) };
    lower(&graph, &spec, batch).unwrap()
}

/// Plans small enough to try everything.
fn small() -> Vec<Plan> {
    let split = Interleaved { split_backward: true, ..Interleaved::PLAIN };
    vec![
        made(Schedule::GPipe, 2, 1, 3),
        made(Schedule::OneFOneB, 2, 1, 3),
        made(Schedule::ZbH1, 3, 1, 3),
        made(Schedule::Interleaved1F1B(split), 2, 2, 2),
        made(Schedule::LoopedBfs, 2, 2, 4),
        made(Schedule::InterleavedZeroBubble, 3, 2, 3),
        made(Schedule::ZbV, 2, 2, 2),
        made(Schedule::DualPipeV, 2, 2, 4),
    ]
}

fn is_caught(plan: &Plan) -> bool {
    programs(plan).is_err() || deadlock(plan).is_err()
}

/// All places of instructions: stage, side, position.
fn places(plan: &Plan) -> Vec<(usize, usize, usize)> {
    let all = (0..plan.programs.len()).flat_map(|stage| [(stage, 0), (stage, 1)]);
    let count = |stage: usize, side: usize| plan.programs[stage][side].instructions.len();
    all.flat_map(|(stage, side)| (0..count(stage, side)).map(move |at| (stage, side, at))).collect()
}

fn program(plan: &mut Plan, stage: usize, side: usize) -> &mut Vec<Instruction> {
    &mut plan.programs[stage][side].instructions
}

#[test]
fn the_machine_ends_where_the_checks_say_so() {
    for plan in small() {
        assert!(!is_caught(&plan));
        assert!(matches!(run(&plan), End::Done(_)));
    }
}

#[test]
fn every_instruction_that_is_lost_or_stands_twice_is_caught() {
    for plan in small() {
        for (stage, side, at) in places(&plan) {
            let mut broken = plan.clone();
            let lost = program(&mut broken, stage, side).remove(at);
            assert!(is_caught(&broken), "without {lost:?}");
            let mut broken = plan.clone();
            let twice = program(&mut broken, stage, side)[at];
            program(&mut broken, stage, side).insert(at, twice);
            assert!(is_caught(&broken), "with {twice:?} twice");
        }
    }
}

/// Swaps an instruction with the next; whether that is caught, and whether it does harm.
fn swapped(plan: &Plan, (stage, side, at): (usize, usize, usize), end: &End) -> (bool, bool) {
    let mut swapped = plan.clone();
    program(&mut swapped, stage, side).swap(at, at + 1);
    (is_caught(&swapped), run(&swapped) != *end)
}

#[test]
fn a_swap_of_neighbours_is_caught_if_and_only_if_it_does_harm() {
    let (mut harmful, mut harmless) = (0, 0);
    for plan in small() {
        let end = run(&plan);
        for place in places(&plan) {
            let (stage, side, at) = place;
            if at + 1 == plan.programs[stage][side].instructions.len() {
                continue;
            }
            let (caught, harms) = swapped(&plan, place, &end);
            let both = &plan.programs[stage][side].instructions[at..at + 2];
            assert_eq!(caught, harms, "stage {stage}, side {side}, {at}: {both:?}");
            *(if harms { &mut harmful } else { &mut harmless }) += 1;
        }
    }
    println!("{harmful} harmful swaps, {harmless} harmless");
    // Most neighbours need each other; some do not, and there is nothing to catch.
    assert!(harmful > 1000 && harmless > 300, "{harmful} harmful, {harmless} harmless");
}

#[test]
fn one_credit_fewer_than_the_least_is_caught_on_every_channel() {
    let mut raised = 0;
    for plan in small() {
        let least: Vec<usize> = plan.channels.iter().map(|channel| channel.credits).collect();
        assert_eq!(least, credits::least(&plan));
        for (channel, credits) in least.into_iter().enumerate() {
            let mut broken = plan.clone();
            broken.channels[channel].credits = credits - 1;
            assert!(deadlock(&broken).is_err(), "{:?}", plan.channels[channel]);
            assert_eq!(run(&broken), End::Stuck);
            raised += usize::from(credits > 1);
        }
    }
    assert!(raised >= 2, "only {raised} channels need more than one credit");
}

#[test]
fn a_channel_that_goes_elsewhere_or_carries_something_else_is_caught() {
    for plan in small() {
        let ends: Vec<(usize, Side)> = (0..plan.programs.len())
            .flat_map(|stage| [(stage, Side::Stage), (stage, Side::Experts)])
            .collect();
        for channel in 0..plan.channels.len() {
            for &end in &ends {
                let mut broken = plan.clone();
                broken.channels[channel].from = end;
                assert!(broken == plan || is_caught(&broken), "from {end:?}");
                let mut broken = plan.clone();
                broken.channels[channel].to = end;
                assert!(broken == plan || is_caught(&broken), "to {end:?}");
            }
            for other in 0..channel {
                let mut broken = plan.clone();
                broken.channels.swap(channel, other);
                assert!(is_caught(&broken), "{channel} for {other}");
            }
            let mut broken = plan.clone();
            broken.channels.remove(channel);
            assert!(programs(&broken).is_err(), "without {channel}");
        }
    }
}

#[test]
fn shared_communicators_hang_where_the_machine_does() {
    let mut ends = [0; 2];
    for plan in small() {
        for communicators in [Communicators::PerPair, Communicators::One] {
            let mut shared = plan.clone();
            shared.communicators = communicators;
            let hangs = deadlock(&shared).is_err();
            assert_eq!(hangs, run(&shared) == End::Stuck, "{communicators:?}");
            ends[usize::from(hangs)] += 1;
            if hangs {
                continue;
            }
            let end = run(&shared);
            for place in places(&shared) {
                if place.2 + 1 < shared.programs[place.0][place.1].instructions.len() {
                    let (caught, harms) = swapped(&shared, place, &end);
                    assert_eq!(caught, harms, "{communicators:?} {place:?}");
                }
            }
        }
    }
    assert!(ends[0] > 1 && ends[1] > 1, "{ends:?}");
}

fn bigger() -> impl Strategy<Value = (Schedule, usize, usize, usize)> {
    let all = prop::sample::select(Schedule::ALL.to_vec());
    (all, 2..5_usize, 1..3_usize, 2..5_usize).prop_map(|(schedule, pp, vpp, rounds)| {
        let vpp = schedule.virtual_stages().unwrap_or(vpp);
        (schedule, pp, vpp, pp * rounds)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A failing case prints its values; the seed is stored beside this file.
    #[test]
    fn changes_of_bigger_plans_are_caught_too(
        (schedule, pp, vpp, microbatches) in bigger(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 8),
    ) {
        let plan = made(schedule, pp, vpp, microbatches);
        let (all, end) = (places(&plan), run(&plan));
        for pick in picks {
            let (stage, side, at) = *pick.get(&all);
            let mut broken = plan.clone();
            let lost = program(&mut broken, stage, side).remove(at);
            prop_assert!(is_caught(&broken), "without {:?}", lost);
            if at + 1 < plan.programs[stage][side].instructions.len() {
                let (caught, harms) = swapped(&plan, (stage, side, at), &end);
                prop_assert_eq!(caught, harms, "{} {} {}", stage, side, at);
            }
            let channel = pick.index(plan.channels.len());
            let mut broken = plan.clone();
            broken.channels[channel].credits -= 1;
            prop_assert!(deadlock(&broken).is_err(), "{:?}", plan.channels[channel]);
        }
    }
}
