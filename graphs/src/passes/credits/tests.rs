//! Credits that are enough and not too many.

use super::*;
use crate::{
    ModelGraph, PlanSpec, check,
    decoder::tests::nano,
    lower,
    mesh::Mesh,
    plan::{Batch, Cargo, Channel, Instruction, Program, Side},
};

const SLACK: usize = 1;

/// Two stages; the second listens first to the last of `ahead + 1` tokens, and then answers.
fn late_listener(ahead: usize) -> Plan {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let spec = PlanSpec { mesh: Mesh { pp: 2, ..Mesh::default() }, ..PlanSpec::default() };
    let batch = Batch { sequences: 1, context: 16, microbatch: 1, lanes: Some(1) };
    let mut plan = lower(&graph, &spec, batch).unwrap();
    let stage = |number| (number, Side::Stage);
    let channel = |from, to, chunk| {
        let cargo = Cargo::Activations { chunk };
        Channel { from: stage(from), to: stage(to), cargo, credits: 1 }
    };
    plan.channels = vec![channel(0, 1, 0), channel(1, 0, 1)];
    let send = |channel, microbatch| Instruction::Send { channel, microbatch };
    let used = |channel, microbatch| {
        let receive = Instruction::Receive { channel, microbatch };
        [receive, Instruction::Forward { chunk: 0, segment: 0, microbatch }]
    };
    let mut first: Vec<Instruction> = (0..=ahead).map(|token| send(0, token)).collect();
    first.extend(used(1, 0));
    let mut second: Vec<Instruction> = used(0, ahead).to_vec();
    second.push(send(1, 0));
    second.extend((0..ahead).flat_map(|token| used(0, token)));
    let program = |instructions| [Program { instructions }, Program::default()];
    plan.programs = vec![program(first), program(second)];
    plan
}

#[test]
fn a_channel_gets_the_credits_its_receiver_lets_wait_and_one_more() {
    for ahead in 0..5 {
        let mut plan = late_listener(ahead);
        set(&mut plan, Credits::Least { slack: SLACK });
        assert_eq!(plan.channels[0].credits, ahead + 1 + SLACK);
        assert_eq!(plan.channels[1].credits, 1 + SLACK);
        assert_eq!(check::deadlock(&plan), Ok(()));
        for channel in &mut plan.channels {
            channel.credits -= SLACK;
        }
        assert_eq!(check::deadlock(&plan), Ok(()));
        if ahead > 0 {
            plan.channels[0].credits -= 1;
            assert_eq!(check::deadlock(&plan).unwrap_err().credit, Some(0));
        }
    }
}
