//! Sampling with the latent cache writes what the whole forward pass would, and a text does not
//! notice who is written beside it.

use std::collections::BTreeMap;

use graphs::{Decoder, ModelGraph, PlanSpec};
use ops::{DType, Tensor, Yarn};
use runtime::{Cluster, Draft, Inference, Reading, Setup, Taste, sample};

use crate::small;

/// Weights after a few steps, so that attention is no longer nearly even.
fn trained(decoder: &Decoder) -> (ModelGraph, BTreeMap<String, Tensor>) {
    let graph: ModelGraph = small::graph(decoder);
    let plan = small::plan(&graph, &PlanSpec::default());
    let setup = Setup { dtype: DType::F32, ..small::setup(graph.clone(), plan) };
    let mut cluster = Cluster::start(setup, small::Numbers::new(decoder.vocab)).unwrap();
    (0..12).for_each(|_| drop(cluster.step().unwrap()));
    (graph, cluster.snapshot().unwrap().tensors)
}

fn models(decoder: &Decoder) -> [Inference; 2] {
    let (graph, tensors) = trained(decoder);
    [DType::F32, DType::Bf16].map(|dtype| Inference::new(graph.clone(), &tensors, dtype).unwrap())
}

/// Five texts of different lengths.
fn prompts() -> Vec<Vec<i32>> {
    let lengths = [5, 1, 13, 2, 34];
    let prompt =
        |(text, length): (i32, i32)| (0..length).map(|i| (7 * text + 3 * i) % 64).collect();
    (0..).zip(lengths).map(prompt).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// Logits of a text read alone, `[t, v]`, a token at a time.
fn alone(model: &Inference, text: &[i32]) -> Vec<Vec<u32>> {
    let mut session = model.session(1);
    let mut read = |token| bits(session.read(&[Reading { text: 0, tokens: &[token] }]));
    text.iter().map(|token| read(*token)).collect()
}

/// Greedy texts beside each other agree with the whole forward pass over each.
fn check(decoder: &Decoder) {
    let [model, _] = models(decoder);
    let mut texts = prompts();
    let mut session = model.session(texts.len());
    assert!(session.is_empty());
    let mut new = texts.clone();
    for _ in 0..20 {
        let readings: Vec<Reading<'_>> =
            new.iter().enumerate().map(|(text, tokens)| Reading { text, tokens }).collect();
        let cached = session.read(&readings).to_vec();
        new.clear();
        for (text, cached) in texts.iter_mut().zip(cached.chunks_exact(decoder.vocab)) {
            let whole = model.logits(text);
            let last = whole.rows(text.len() - 1..text.len()).f32().into_owned();
            let largest = last.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            // Keys and values are absorbed into queries and outputs, so sums go another way.
            let apart = last.iter().zip(cached).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-4 * largest, "{apart} of {largest} after {} tokens", text.len());
            let token = sample(cached, 0.0, 1.0, 0.0);
            assert_eq!(token, sample(&last, 0.0, 1.0, 0.0), "after {text:?}");
            text.push(token);
            new.push(vec![token]);
        }
    }
    let kept = decoder.layers * (decoder.kv_rank + decoder.rope);
    for (text, tokens) in texts.iter().enumerate() {
        assert_eq!(session.len(text), tokens.len() - 1);
        assert_eq!(session.cache_bytes(text), 4 * kept * session.len(text));
    }
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

#[test]
fn a_text_has_the_same_bits_alone_and_beside_others_however_it_is_cut() {
    for model in models(&small::decoder()) {
        let texts = prompts();
        let alone: Vec<_> = texts.iter().map(|text| alone(&model, text)).collect();
        // Whole prompts at once.
        let readings: Vec<Reading<'_>> =
            texts.iter().enumerate().map(|(text, tokens)| Reading { text, tokens }).collect();
        let mut session = model.session(texts.len());
        let logits = session.read(&readings);
        for (logits, alone) in logits.chunks_exact(64).zip(&alone) {
            assert_eq!(bits(logits), *alone.last().unwrap());
        }
        // A token of each at a time: texts end one after the other, and the others do not notice.
        let mut session = model.session(texts.len());
        for place in 0..texts.iter().map(Vec::len).max().unwrap() {
            let open: Vec<usize> = (0..texts.len()).filter(|t| place < texts[*t].len()).collect();
            let reading = |&text: &usize| Reading { text, tokens: &texts[text][place..=place] };
            let readings: Vec<Reading<'_>> = open.iter().map(reading).collect();
            let logits = session.read(&readings);
            for (logits, text) in logits.chunks_exact(64).zip(&open) {
                assert_eq!(bits(logits), alone[*text][place], "text {text} at {place}");
            }
        }
    }
}

#[test]
fn drawn_texts_are_the_same_alone_and_together() {
    for model in models(&small::decoder()) {
        let drafts: Vec<Draft> = { prompts().into_iter().zip(100..) }
            .map(|(prompt, key)| Draft { prompt, key })
            .collect();
        for temperature in [0.0, 1.5] {
            // Token 9 ends a text, sooner or later.
            let taste = Taste { tokens: 30, temperature, top_p: 0.9, vocab: 60, end: Some(9) };
            let together = model.begin(&drafts, &taste).finish();
            let alone = drafts
                .iter()
                .flat_map(|draft| model.begin(std::slice::from_ref(draft), &taste).finish());
            assert_eq!(together, alone.collect::<Vec<_>>());
            assert!(together.iter().flatten().all(|token| *token != 9 && *token < 60));
        }
        let nothing = Taste { tokens: 0, temperature: 0.0, top_p: 1.0, vocab: 64, end: None };
        assert_eq!(model.begin(&drafts, &nothing).finish(), vec![Vec::<i32>::new(); 5]);
    }
}

#[test]
fn the_cache_in_bf16_is_as_near_to_f32_as_the_whole_forward_pass_in_bf16() {
    let [exact, rounded] = models(&small::decoder());
    let (mut of_cache, mut of_whole) = (0.0, 0.0);
    for text in prompts() {
        let truth = exact.logits(&text);
        let mut session = rounded.session(1);
        let mut read = |token| session.read(&[Reading { text: 0, tokens: &[token] }]).to_vec();
        let cached: Vec<f32> = text.iter().flat_map(|token| read(*token)).collect();
        let error = |logits: &[f32]| -> f32 {
            logits.iter().zip(truth.f32().iter()).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        of_cache += error(&cached);
        of_whole += error(&rounded.logits(&text).f32());
    }
    // Both round about as often; an expert chosen otherwise makes up most of either.
    assert!(0.0 < of_cache && of_cache < 2.0 * of_whole, "{of_cache} and {of_whole}");
}
