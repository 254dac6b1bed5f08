//! Plans broken on purpose, in every way that the laws name.

use super::*;
use crate::{
    ModelGraph, PlanSpec,
    decoder::tests::nano,
    lower,
    mesh::Mesh,
    plan::{Batch, Cargo, Instruction, Plan, Side},
    schedule::{Pipeline, tests::golden},
    spec::WeightGrad,
    text::read_orders,
};

mod machine;
mod mutations;

fn plan(pp: usize, vpp: usize) -> Plan {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let mesh = Mesh { pp, vpp, ep: 2, dp: 1 };
    let spec = PlanSpec { mesh, weight_grad: Some(WeightGrad::Early), ..PlanSpec::default() };
    let batch = Batch { sequences: 8, context: 16, microbatch: 1, lanes: Some(2) };
    lower(&graph, &spec, batch).unwrap()
}

/// One chunk a stage.
fn places(stages: usize) -> Vec<usize> {
    (0..stages).collect()
}

fn mistakes(pipeline: Pipeline, text: &str) -> Vec<String> {
    let errors =
        orders(&places(pipeline.stages), pipeline.microbatches, &read_orders(text).unwrap())
            .unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_of_an_order_is_named_with_its_cell() {
    let pipeline = Pipeline { stages: 2, virtual_stages: 1, microbatches: 2 };
    assert_eq!(
        mistakes(pipeline, "0F0,0B1,0F0,0F1,0B0,1F0\n1F0,1F1,1W0,1I0,1B1"),
        [
            "stage 0, cell 1: 0B1 comes before its 0F1",
            "stage 0, cell 2: 0F0 does again what cell 0 has done",
            "stage 0, cell 5: 1F0 is not work of this stage",
            "stage 1, cell 2: 1W0 comes before its 1I0",
        ]
    );
    assert_eq!(
        mistakes(pipeline, "0F0,0F1,0I0,0W0,0I1\n1F0,1B0,1B1"),
        [
            "stage 0: 0W1 is missing",
            "stage 1, cell 2: 1B1 comes before its 1F1",
            "stage 1: 1F1 is missing"
        ]
    );
    assert_eq!(mistakes(pipeline, "0F0"), ["the orders have 1 rows for 2 stages"]);
}

#[test]
fn no_kind_of_mistake_in_an_order_is_missed() {
    let pipeline = Pipeline { stages: 2, virtual_stages: 1, microbatches: 1 };
    for (text, expected) in [
        ("0F0,0F0,0B0\n1F0,1B0", vec!["stage 0, cell 1: 0F0 does again what cell 0 has done"]),
        ("0F0,0I0,0I0,0W0\n1F0,1B0", vec!["stage 0, cell 2: 0I0 does again what cell 1 has done"]),
        ("0F0,0I0,0W0,0W0\n1F0,1B0", vec!["stage 0, cell 3: 0W0 does again what cell 2 has done"]),
        ("0F0,0B0,0I0\n1F0,1B0", vec!["stage 0, cell 2: 0I0 does again what cell 1 has done"]),
        ("0F0,0B0,0W0\n1F0,1B0", vec!["stage 0, cell 2: 0W0 does again what cell 1 has done"]),
        ("0F0,0I0,0B0\n1F0,1B0", vec!["stage 0, cell 2: 0B0 does again what cell 1 has done"]),
        ("0F0,0W0,0I0\n1F0,1B0", vec!["stage 0, cell 1: 0W0 comes before its 0I0"]),
        ("0I0,0F0,0W0\n1F0,1B0", vec!["stage 0, cell 0: 0I0 comes before its 0F0"]),
        ("0F0\n1F0,1B0", vec!["stage 0: 0I0 is missing", "stage 0: 0W0 is missing"]),
        ("0F0,0I0\n1F0,1B0", vec!["stage 0: 0W0 is missing"]),
        (
            "0F0,0W0\n1F0,1B0",
            vec!["stage 0, cell 1: 0W0 comes before its 0I0", "stage 0: 0I0 is missing"],
        ),
        ("0F0,0B0,1F0\n1F0,1B0", vec!["stage 0, cell 2: 1F0 is not work of this stage"]),
        ("0F0,0B0,2F0\n1F0,1B0", vec!["stage 0, cell 2: 2F0 is not work of this stage"]),
        ("0F0,0B0,0F1\n1F0,1B0", vec!["stage 0, cell 2: 0F1 is not work of this stage"]),
    ] {
        assert_eq!(mistakes(pipeline, text), expected, "{text}");
    }
    let many = Pipeline { stages: 1, virtual_stages: 1, microbatches: 1 << 40 };
    assert_eq!(
        mistakes(many, "0F0,0B0"),
        ["stage 0: 2 cells cannot hold the work of 1 chunks for 1099511627776 microbatches"]
    );
}

#[test]
fn orders_that_others_refuse_are_refused() {
    let Some(folder) = golden("must_reject") else { return };
    for name in ["missing_forward.csv", "weight_before_input.csv", "duplicate_forward.csv"] {
        let rows = read_orders(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap();
        let microbatches = 1 + rows.iter().flatten().map(|action| action.microbatch).max().unwrap();
        assert!(orders(&places(rows.len()), microbatches, &rows).is_err(), "{name}");
    }
}

#[test]
fn a_lost_instruction_is_missed_wherever_it_was() {
    let good = plan(2, 2);
    assert_eq!(programs(&good), Ok(()));
    for stage in 0..2 {
        for side in 0..2 {
            for index in 0..good.programs[stage][side].instructions.len() {
                let mut broken = good.clone();
                let lost = broken.programs[stage][side].instructions.remove(index);
                let errors = programs(&broken).unwrap_err();
                let missing = |error: &ProgramError| match error {
                    ProgramError::Missing { instruction, .. } => *instruction == lost,
                    _ => false,
                };
                assert!(errors.iter().any(missing), "{lost:?}: {errors:?}");
            }
        }
    }
}

#[test]
fn a_use_before_its_arrival_is_found() {
    let mut plan = plan(2, 1);
    let program = &mut plan.programs[1][0].instructions;
    assert!(matches!(program[0], Instruction::Receive { .. }), "{:?}", program[0]);
    program.swap(0, 1);
    let errors = programs(&plan).unwrap_err();
    assert!(matches!(errors[0], ProgramError::Early { index: 0, .. }), "{errors:?}");
}

#[test]
fn an_instruction_done_twice_or_on_the_wrong_actor_is_found() {
    let good = plan(2, 1);
    let mut broken = good.clone();
    let first = broken.programs[0][0].instructions[0];
    broken.programs[0][0].instructions.push(first);
    broken.programs[1][0].instructions.push(first);
    let errors = programs(&broken).unwrap_err();
    assert!(matches!(errors[0], ProgramError::Twice { stage: 0, .. }), "{errors:?}");
    assert!(matches!(errors[1], ProgramError::Foreign { stage: 1, .. }), "{errors:?}");
}

#[test]
fn without_credits_every_channel_is_stuck_at_its_first_send() {
    let mut plan = plan(2, 1);
    let at = |plan: &Plan, cargo| plan.channels.iter().position(|c| c.cargo == cargo).unwrap();
    let channel = at(&plan, Cargo::Activations { chunk: 0 });
    plan.channels[channel].credits = 0;
    let found = deadlock(&plan).unwrap_err();
    assert_eq!(found.credit, Some(channel));
    assert_eq!(
        found.story,
        [
            "stage 0 may send the activations of chunk 0 of microbatch 0 when stage 1 has used \
             microbatch 0 (credits: 0)",
            "stage 1 waits for the activations of chunk 0 of microbatch 0 from stage 0",
            "one more credit for the activations of chunk 0 from stage 0 would break the ring",
        ]
    );
    plan.channels[channel].credits = 1;
    assert_eq!(deadlock(&plan), Ok(()));
}

#[test]
fn actors_that_wait_for_each_other_first_are_told_so() {
    let mut plan = plan(2, 1);
    let instructions = &mut plan.programs[0][0].instructions;
    let gradients = plan.channels.iter().position(|c| c.cargo == Cargo::Gradients { chunk: 1 });
    let early = Instruction::Receive { channel: gradients.unwrap(), microbatch: 0 };
    let from = instructions.iter().position(|&it| it == early).unwrap();
    let moved = instructions.remove(from);
    instructions.insert(0, moved);
    let found = deadlock(&plan).unwrap_err();
    assert_eq!(found.credit, None);
    assert_eq!(
        found.story.last().unwrap(),
        "no credit can break the ring: the order of work itself waits for itself"
    );
}
