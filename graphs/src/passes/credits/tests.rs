//! Credits that are enough and not too many.

use super::*;
use crate::{
    ModelGraph, PlanSpec, check,
    decoder::tests::nano,
    lower,
    mesh::Mesh,
    plan::{Batch, Cargo, Channel, Program},
};

/// Two stages; the first sends three tokens before it wants an answer to the second one's token.
fn crossing(ahead: usize) -> Plan {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let spec = PlanSpec { mesh: Mesh { pp: 2, ..Mesh::default() }, ..PlanSpec::default() };
    let batch = Batch { sequences: 1, context: 16, microbatch: 1, lanes: 1 };
    let mut plan = lower(&graph, &spec, batch).unwrap();
    let ends = [(0, Side::Stage), (1, Side::Stage)];
    plan.channels = [(0, 1), (1, 0)]
        .map(|(from, to)| Channel {
            from: ends[from],
            to: ends[to],
            cargo: Cargo::Activations { chunk: from },
            credits: 1,
        })
        .to_vec();
    let send = |channel, microbatch| Instruction::Send { channel, microbatch };
    let receive = |channel, microbatch| Instruction::Receive { channel, microbatch };
    let use_it = Instruction::Forward { chunk: 0, segment: 0, microbatch: 0 };
    let mut first: Vec<Instruction> = (0..ahead).map(|token| send(0, token)).collect();
    first.extend([send(1 - 1, ahead), receive(1, 0), use_it]);
    let mut second = vec![send(1, 0)];
    second.extend((0..=ahead).flat_map(|token| [receive(0, token), use_it]));
    // The second actor answers before it listens, to a first that listens after it has spoken.
    second.insert(0, receive(0, ahead));
    second.insert(1, use_it);
    second.retain({
        let mut seen = false;
        move |&it| it != receive(0, ahead) || !std::mem::replace(&mut seen, true)
    });
    let program = |instructions| Program { instructions };
    plan.programs =
        vec![[program(first), Program::default()], [program(second), Program::default()]];
    plan
}

#[test]
fn a_channel_gets_the_credits_its_receiver_lets_wait_and_one_more() {
    for ahead in 0..5 {
        let mut plan = crossing(ahead);
        set(&mut plan);
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
