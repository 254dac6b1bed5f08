//! Sampling with the latent cache writes what the whole forward pass would.

use graphs::{Decoder, ModelGraph, PlanSpec};
use ops::{DType, Yarn};
use runtime::{Cluster, Inference, Setup, sample};

use crate::small;

/// Trains a few steps, so that attention is no longer nearly even.
fn trained(decoder: &Decoder) -> Inference {
    let graph: ModelGraph = small::graph(decoder);
    let plan = small::plan(&graph, &PlanSpec::default());
    let setup = Setup { dtype: DType::F32, ..small::setup(graph.clone(), plan) };
    let mut cluster = Cluster::start(setup, small::Numbers::new(decoder.vocab)).unwrap();
    (0..12).for_each(|_| drop(cluster.step().unwrap()));
    let tensors = cluster.snapshot().unwrap().tensors;
    Inference::new(graph, &tensors, DType::F32).unwrap()
}

fn check(decoder: &Decoder) {
    let model = trained(decoder);
    let mut text = vec![5, 8, 11, 14, 18];
    let mut session = model.session();
    assert!(session.is_empty());
    let mut cached = session.read(&text);
    for _ in 0..20 {
        let whole = model.logits(&text);
        let last = whole.rows(text.len() - 1..text.len()).f32().into_owned();
        let largest = last.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        // Keys and values are absorbed into queries and outputs, so sums go another way.
        let apart = last.iter().zip(&cached).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4 * largest, "{apart} of {largest} after {} tokens", text.len());
        let token = sample(&cached, 0.0, 1.0, 0.0);
        assert_eq!(token, sample(&last, 0.0, 1.0, 0.0), "after {text:?}");
        assert_eq!(session.len(), text.len());
        text.push(token);
        cached = session.read(&[token]);
    }
    let kept = decoder.layers * (decoder.kv_rank + decoder.rope);
    assert_eq!(session.cache_bytes(), 4 * kept * text.len());
}

fn yarn() -> Option<Yarn> {
    let (beta_fast, beta_slow, mscale, mscale_all_dim) = (32.0, 1.0, 1.0, 1.0);
    Some(Yarn { factor: 4.0, original: 12, beta_fast, beta_slow, mscale, mscale_all_dim })
}

#[test]
fn the_latent_cache_gives_the_tokens_of_the_whole_forward_pass() {
    check(&small::decoder());
}

#[test]
fn the_latent_cache_gives_them_with_full_queries_too() {
    check(&Decoder { q_rank: None, ..small::decoder() });
}

#[test]
fn the_latent_cache_gives_them_with_a_stretched_rotation_too() {
    check(&Decoder { yarn: yarn(), ..small::decoder() });
    check(&Decoder { yarn: yarn(), q_rank: None, ..small::decoder() });
}
