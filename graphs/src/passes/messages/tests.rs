//! Layer by layer against Megatron's combined 1F1B, and what a pair sends when.

use super::*;
use crate::{plan::Visit, route, schedule::tests::golden};

/// Chunks of so many layers with experts each, all on one stage.
fn chunks(layers: &[usize]) -> Vec<Chunk> {
    let chunk = |&layers: &usize| Chunk {
        stage: 0,
        nodes: 0..0,
        segments: vec![Vec::new(); layers + 1],
        visits: vec![Visit::default(); layers],
        restored: Default::default(),
    };
    layers.iter().map(chunk).collect()
}

/// Steps of an order that names chunks from 1 on, backward passes below 0: a backward pass and the
/// forward pass behind it are a pair.
fn steps(order: &[i64]) -> Vec<Step> {
    let mut counts = std::collections::BTreeMap::new();
    let mut action = |chunk: i64| {
        let microbatch = counts.entry(chunk).or_insert(0);
        *microbatch += 1;
        let work = if chunk > 0 { Work::Forward } else { Work::Backward };
        Action { chunk: chunk.unsigned_abs() as usize - 1, work, microbatch: *microbatch - 1 }
    };
    let (mut steps, mut rest) = (Vec::new(), order);
    while let [first, ..] = rest {
        let pairs = *first < 0 && rest.get(1).is_some_and(|next| *next > 0);
        steps.push(match pairs {
            true => {
                let backward = action(*first);
                Step::Pair(action(rest[1]), backward)
            }
            false => Step::Work(action(*first)),
        });
        rest = &rest[1 + usize::from(pairs)..];
    }
    steps
}

/// The layers that a program computes, counted from 1, as Megatron writes them: `-2` is the
/// gradient of the input of the second, `-2.5` that of its weights.
fn layers(program: &Program, layers: &[usize]) -> Vec<f64> {
    let layer = |chunk: usize, segment: usize| {
        let first: usize = layers[..chunk].iter().sum();
        (segment < layers[chunk]).then(|| (first + segment + 1) as f64)
    };
    let written = |it: &Instruction| match *it {
        Instruction::Forward { chunk, segment, .. } => layer(chunk, segment),
        Instruction::BackwardInput { chunk, segment, .. } => layer(chunk, segment).map(|it| -it),
        Instruction::BackwardWeight { chunk, segment, .. } => {
            layer(chunk, segment).map(|it| -it - 0.5)
        }
        _ => None,
    };
    program.instructions.iter().filter_map(written).collect()
}

#[test]
fn layers_take_turns_as_in_megatrons_combined_1f1b() {
    let Some(path) = golden("megatron/ep_overlap_layer_orders.json") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for entry in file["entries"].as_array().unwrap() {
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect()
        };
        let per_chunk: Vec<usize> =
            numbers(&entry["num_layers_per_chunk"]).iter().map(|it| *it as usize).collect();
        let order: Vec<i64> = numbers(&entry["order"]).iter().map(|it| *it as i64).collect();
        let chunks = chunks(&per_chunk);
        let routes = Routes::new(&route::channels(&chunks));
        let steps = steps(&order);
        let [stage, _] = programs(&steps, &[], &chunks, &routes);
        let mut expected = numbers(&entry["result"][0]);
        let mut got = layers(&stage, &per_chunk);
        // Alone, a backward pass here computes all its input gradients before its weights'.
        let with_weights = entry["capture_wgrad"].as_bool().unwrap();
        let alone = |it: &Step| matches!(it, Step::Work(it) if it.work == Work::Backward);
        let tail = steps.iter().rev().take_while(|it| alone(it)).count();
        let paired = steps.len() - tail;
        let cut = |all: &mut Vec<f64>| {
            let kept = steps[..paired].iter().flat_map(Step::actions).map(|it| {
                let parts = if it.work == Work::Forward || !with_weights { 1 } else { 2 };
                parts * per_chunk[it.chunk]
            });
            all.truncate(kept.sum());
        };
        if !with_weights {
            got.retain(|it| it.fract() == 0.0);
        }
        cut(&mut expected);
        cut(&mut got);
        assert_eq!(got, expected, "{order:?}");
        compared += 1;
    }
    assert!(compared >= 30, "{compared} orders were compared");
}

#[test]
fn rows_of_one_microbatch_travel_while_the_other_one_computes() {
    let chunks = chunks(&[1]);
    let routes = Routes::new(&route::channels(&chunks));
    let at = |work, microbatch| Action { chunk: 0, work, microbatch };
    let pair = Step::Pair(at(Work::Forward, 1), at(Work::Backward, 0));
    let programs = programs(&[pair], &[], &chunks, &routes);
    let channels = route::channels(&chunks);
    let words = |program: &Program| {
        let word = |it: &Instruction| match *it {
            Instruction::Receive { channel, .. } => {
                format!("receive {:?}", channels[channel].cargo)
            }
            Instruction::Send { channel, .. } => format!("send {:?}", channels[channel].cargo),
            Instruction::Forward { segment, .. } => format!("F{segment}"),
            Instruction::BackwardInput { segment, .. } => format!("I{segment}"),
            Instruction::BackwardWeight { segment, .. } => format!("W{segment}"),
            ref other => format!("{other:?}"),
        };
        let short = |word: String| word.replace(" { chunk: 0, visit: 0 }", "");
        program.instructions.iter().map(word).map(short).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        words(&programs[0]),
        "I1, send CombineGradients, F0, send Dispatch, receive DispatchGradients, I0, W0, W1, \
         receive Combine, F1"
    );
    assert_eq!(
        words(&programs[1]),
        "receive CombineGradients, I0, send DispatchGradients, W0, receive Dispatch, F0, \
         send Combine"
    );
}
