//! Prints what each stage of a pipeline does when, under every schedule.
//!
//! A cell is chunk, work and microbatch: `2F0` is the forward pass of chunk 2 for microbatch 0,
//! `2B0` its backward pass, which takes two slots here. Dots are bubbles: the stage waits.
//!
//! `cargo run --example 01_read_a_schedule`

use std::collections::BTreeMap;

use graphs::{
    action::{Action, Work},
    schedule::{Interleaved, Pipeline, Schedule},
};

fn main() {
    let pipeline = Pipeline { stages: 3, virtual_stages: 1, microbatches: 4 };
    show("GPipe", Schedule::GPipe, pipeline);
    show("1F1B: as soon as a microbatch is through, back it goes", Schedule::OneFOneB, pipeline);

    let twice = Pipeline { virtual_stages: 2, microbatches: 6, ..pipeline };
    let interleaved = |extra_warmup| {
        Schedule::Interleaved1F1B(Interleaved { extra_warmup, ..Interleaved::default() })
    };
    show("interleaved 1F1B: two chunks a stage", interleaved(0), twice);
    show("Kimi K2's: one more forward pass before the first backward", interleaved(1), twice);
}

fn show(title: &str, schedule: Schedule, pipeline: Pipeline) {
    schedule.fits(pipeline).expect("the schedule knows such a pipeline");
    let orders = schedule.orders(pipeline);
    let ends = ends(&orders, pipeline.stages * pipeline.virtual_stages);
    let span = *ends.values().max().expect("a step has actions");
    println!("{title}");
    for (stage, order) in orders.iter().enumerate() {
        let mut row = vec!["   .".to_string(); span];
        for action in order {
            let begin = ends[action] - slots(action);
            row[begin..ends[action]].fill("   -".to_string());
            row[begin] = format!("{action:>4}");
        }
        let busy: usize = order.iter().map(slots).sum();
        println!("stage {stage}:{}  idle {}", row.concat(), span - busy);
    }
    println!();
}

fn slots(action: &Action) -> usize {
    if action.work == Work::Forward { 1 } else { 2 }
}

/// When each action ends, if every stage does its order as soon as its inputs are there.
fn ends(orders: &[Vec<Action>], chunks: usize) -> BTreeMap<Action, usize> {
    let mut ends = BTreeMap::new();
    let mut free = vec![0; orders.len()];
    let mut left: Vec<&[Action]> = orders.iter().map(Vec::as_slice).collect();
    while left.iter().any(|order| !order.is_empty()) {
        for (stage, order) in left.iter_mut().enumerate() {
            while let Some((action, rest)) = order.split_first() {
                let Some(ready) = ready(action, chunks, &ends) else { break };
                free[stage] = free[stage].max(ready) + slots(action);
                ends.insert(*action, free[stage]);
                *order = rest;
            }
        }
    }
    ends
}

/// When the chunk before (forward) or after (backward) has sent what the action reads.
fn ready(action: &Action, chunks: usize, ends: &BTreeMap<Action, usize>) -> Option<usize> {
    match (action.work, action.chunk) {
        (Work::Forward, 0) => Some(0),
        (Work::Forward, chunk) => ends.get(&Action { chunk: chunk - 1, ..*action }).copied(),
        (_, chunk) if chunk + 1 == chunks => Some(0),
        (_, chunk) => ends.get(&Action { chunk: chunk + 1, ..*action }).copied(),
    }
}
