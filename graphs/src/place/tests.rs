//! Cuts, balanced and by hand.

use super::*;
use crate::{Decoder, decoder::tests::nano, spec::Share};

fn batch() -> Batch {
    Batch { sequences: 1, context: 64, microbatch: 1, lanes: Some(1) }
}

fn graph() -> ModelGraph {
    ModelGraph::new(&nano().expand()).unwrap()
}

/// The names of the first nodes of all chunks but the first.
fn cuts(stages: &Stages, chunks: usize) -> Vec<String> {
    let graph = graph();
    let places = place(&graph, stages, chunks, batch()).unwrap();
    places[1..].iter().map(|nodes| graph.node(nodes.start).name.clone()).collect()
}

fn mistakes(shares: &[(usize, &[Part])], chunks: usize) -> Vec<String> {
    let share = |&(layers, with): &(usize, &[Part])| Share { layers, with: with.to_vec() };
    let stages = Stages::Explicit(shares.iter().map(share).collect());
    let errors = place(&graph(), &stages, chunks, batch()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

/// The price of the dearest of `chunks` runs, by trying all cuts.
fn least(pieces: &[f64], chunks: usize) -> f64 {
    if chunks == 1 {
        return pieces.iter().sum();
    }
    let first = 1..=pieces.len() - (chunks - 1);
    let price =
        |end: usize| f64::max(pieces[..end].iter().sum(), least(&pieces[end..], chunks - 1));
    first.map(price).fold(f64::INFINITY, f64::min)
}

#[test]
fn the_dearest_chunk_is_as_cheap_as_trying_all_cuts_can_make_it() {
    let seed = 20_250_728_u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let pieces: Vec<f64> = (0..2 + random(8)).map(|_| random(20) as f64).collect();
        let chunks = 1 + random(pieces.len() as u64) as usize;
        let cuts = lightest(&pieces, chunks);
        assert_eq!(cuts.len(), chunks - 1);
        let mut starts: Vec<usize> = cuts.iter().map(|last| last + 1).collect();
        starts.insert(0, 0);
        starts.push(pieces.len());
        assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{pieces:?} {cuts:?}");
        let prices = starts.windows(2).map(|pair| pieces[pair[0]..pair[1]].iter().sum::<f64>());
        assert_eq!(prices.fold(0.0, f64::max), least(&pieces, chunks), "{pieces:?} {cuts:?}");
    }
}

#[test]
fn equal_layers_make_equal_chunks_and_half_layers_count() {
    let decoder = Decoder { dense_layers: 0, vocab: 16, ..nano() };
    let graph = ModelGraph::new(&decoder.expand()).unwrap();
    let places = place(&graph, &Stages::default(), 2, batch()).unwrap();
    assert_eq!(graph.node(places[1].start).name, "model.layers.2.input_layernorm");
    let places = place(&graph, &Stages::default(), 8, batch()).unwrap();
    assert!(graph.node(places[1].start).name.ends_with(".post_attention_layernorm"));
}

#[test]
fn experts_are_priced_by_the_rows_that_arrive() {
    let graph = graph();
    let prices = prices(&graph, batch());
    let price = |end: &str| {
        let id = graph.nodes().position(|node| node.name.ends_with(end)).unwrap();
        prices[id]
    };
    let (routed, shared) = (price("experts.*.gate_proj"), price("shared_experts.gate_proj"));
    assert_eq!(routed, 4.0 * shared);
}

#[test]
fn the_ends_keep_their_parts() {
    let free = Stages::Balanced(Balanced { first: vec![], last: vec![] });
    assert_eq!(cuts(&free, 11).last().unwrap(), "lm_head");
    let graph = graph();
    let error = place(&graph, &Stages::default(), 11, batch()).unwrap_err();
    assert_eq!(error, [PlanError::TooFewCuts { wanted: 11, most: 10 }]);
}

#[test]
fn explicit_cuts_put_parts_where_they_are_named() {
    let share = |layers, with: &[Part]| Share { layers, with: with.to_vec() };
    let stages = Stages::Explicit(vec![
        share(0, &[Part::Embed]),
        share(4, &[Part::Norm]),
        share(0, &[Part::Head, Part::Loss]),
    ]);
    assert_eq!(cuts(&stages, 3), ["model.layers.0.input_layernorm", "lm_head"]);
}

#[test]
fn explicit_cuts_that_do_not_hold_the_model_once_are_refused() {
    use Part::{Embed, Head, Loss, Norm};
    assert_eq!(mistakes(&[(4, &[])], 2), ["`stages` has 1 entries for pp * vpp = 2 chunks"]);
    assert_eq!(
        mistakes(&[(2, &[Embed]), (3, &[])], 2),
        ["`stages` hold 5 layers together, but the model has 4"]
    );
    assert_eq!(
        mistakes(&[(2, &[Norm]), (2, &[Head])], 2),
        ["`stages` put layer 3 after Norm: entry 0 before 1"]
    );
    assert_eq!(
        mistakes(&[(2, &[Head]), (0, &[]), (2, &[Norm, Loss])], 3),
        [
            "`stages` name Head in 2 entries",
            "`stages` put Norm after Head: entry 0 before 2",
            "`stages` leave entry 1, counted from 0, without a node",
        ]
    );
}
