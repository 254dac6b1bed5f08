//! Counts of published models, and decoders that go to a graph and back.

use super::*;
use crate::model::ModelGraph;

/// Kimi K2, as released.
pub(crate) fn kimi_k2() -> Decoder {
    Decoder {
        layers: 61,
        dense_layers: 1,
        hidden: 7168,
        dense_width: 18432,
        vocab: 163_840,
        heads: 64,
        q_rank: Some(1536),
        kv_rank: 512,
        nope: 128,
        rope: 64,
        value: 128,
        experts: 384,
        experts_per_token: 8,
        shared_experts: 1,
        expert_width: 2048,
        groups: 1,
        groups_per_token: 1,
        scaling: 2.827,
        rope_theta: 50_000.0,
        yarn: Some(Yarn {
            factor: 32.0,
            original: 4096,
            beta_fast: 1.0,
            beta_slow: 1.0,
            mscale: 1.0,
            mscale_all_dim: 1.0,
        }),
        norm_eps: 1e-6,
        init_std: 0.02,
    }
}

fn deepseek_v3() -> Decoder {
    Decoder {
        dense_layers: 3,
        vocab: 129_280,
        heads: 128,
        experts: 256,
        groups: 8,
        groups_per_token: 4,
        scaling: 2.5,
        rope_theta: 10_000.0,
        ..kimi_k2()
    }
}

fn moonlight() -> Decoder {
    Decoder {
        layers: 27,
        hidden: 2048,
        dense_width: 11_264,
        heads: 16,
        q_rank: None,
        experts: 64,
        experts_per_token: 6,
        shared_experts: 2,
        expert_width: 1408,
        scaling: 2.446,
        yarn: None,
        norm_eps: 1e-5,
        ..kimi_k2()
    }
}

/// A model small enough to print.
pub(crate) fn nano() -> Decoder {
    Decoder {
        layers: 4,
        hidden: 256,
        dense_width: 768,
        vocab: 4096,
        heads: 4,
        q_rank: Some(96),
        kv_rank: 64,
        nope: 32,
        rope: 16,
        value: 32,
        experts: 16,
        experts_per_token: 4,
        expert_width: 128,
        yarn: None,
        ..kimi_k2()
    }
}

fn mini() -> Decoder {
    Decoder {
        layers: 8,
        hidden: 512,
        dense_width: 1536,
        vocab: 8192,
        heads: 8,
        q_rank: Some(192),
        kv_rank: 128,
        nope: 64,
        rope: 32,
        value: 64,
        experts: 32,
        expert_width: 256,
        ..nano()
    }
}

#[test]
fn the_parameters_of_published_models_are_counted_to_the_last_one() {
    assert_eq!(kimi_k2().parameter_count(), 1_026_408_209_408);
    assert_eq!(deepseek_v3().parameter_count(), 671_026_404_352);
    assert_eq!(moonlight().parameter_count(), 15_960_108_544);
}

#[test]
fn a_token_meets_the_published_share_of_the_parameters() {
    let billions = |decoder: Decoder| decoder.active_parameter_count() as f64 / 1e9;
    assert!((billions(kimi_k2()) - 32.86).abs() < 0.01);
    assert!((billions(deepseek_v3()) - 37.55).abs() < 0.01);
    let without = moonlight().active_parameter_count() - 2 * 163_840 * 2048;
    assert_eq!((without as f64 / 1e5).round(), 22_437.0);
}

#[test]
fn the_small_models_have_the_sizes_they_are_known_by() {
    assert_eq!((nano().parameter_count() as f64 / 1e5).round(), 82.0);
    assert_eq!((mini().parameter_count() as f64 / 1e5).round(), 1075.0);
}

#[test]
fn the_graph_holds_the_parameters_that_were_counted() {
    for decoder in [nano(), mini(), moonlight()] {
        let graph = ModelGraph::new(&decoder.expand()).unwrap();
        let trained = graph.parameters().iter().filter(|p| p.spec.rule != Rule::Balance);
        assert_eq!(trained.map(|p| p.elements()).sum::<usize>(), decoder.parameter_count());
    }
}

#[test]
fn parameters_carry_the_names_of_transformers() {
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let names: Vec<&str> = graph.parameters().iter().map(|p| p.name.as_str()).collect();
    for name in [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_a_proj.weight",
        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.3.mlp.gate.e_score_correction_bias",
        "model.layers.3.mlp.experts.15.down_proj.weight",
        "model.layers.3.mlp.shared_experts.up_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn a_decoder_is_recognised_in_its_graph_and_a_changed_graph_is_not() {
    let dense = Decoder {
        dense_layers: 2,
        layers: 2,
        experts: 0,
        experts_per_token: 0,
        shared_experts: 0,
        expert_width: 0,
        scaling: 1.0,
        ..nano()
    };
    for decoder in [nano(), mini(), moonlight(), deepseek_v3(), dense] {
        let graph = ModelGraph::new(&decoder.expand()).unwrap();
        assert_eq!(Decoder::recognise(&graph), Some(decoder.clone()));
        let mut source = decoder.expand();
        let block = source.blocks.values_mut().next().unwrap();
        let ops::Op::RmsNorm(ref mut norm) = block[0].op else { panic!("{:?}", block[0]) };
        norm.eps *= 2.0;
        let changed = ModelGraph::new(&source).unwrap();
        assert_eq!(Decoder::recognise(&changed), None);
    }
}

#[test]
fn a_stretched_graph_is_that_of_the_stretched_decoder_and_keeps_every_weight() {
    let yarn = kimi_k2().yarn.unwrap();
    let graph = ModelGraph::new(&nano().expand()).unwrap();
    let stretched = graph.stretched(&yarn).unwrap();
    let expected = Decoder { yarn: Some(yarn), ..nano() };
    assert_eq!(Decoder::recognise(&stretched), Some(expected));
    assert_eq!(stretched.parameters(), graph.parameters());
}

#[test]
fn every_field_out_of_range_is_named_at_once() {
    let wrong = Decoder { layers: 0, heads: 0, rope: 15, experts_per_token: 17, ..nano() };
    let fields: Vec<String> = wrong.check().unwrap_err().iter().map(|e| e.to_string()).collect();
    assert_eq!(
        fields,
        [
            "`layers` is 0; expected 1 to 4096",
            "`heads` is 0; expected 1 to 4096",
            "`dense_layers` is 1; expected at most the 0 of `layers`",
            "`rope` is 15; expected an even width",
        ]
    );
    let wrong = Decoder { experts_per_token: 17, groups: 3, ..nano() };
    let fields: Vec<String> = wrong.check().unwrap_err().iter().map(|e| e.to_string()).collect();
    assert_eq!(
        fields,
        [
            "`groups` is 3; expected a divisor of the 16 experts",
            "`experts_per_token` is 17; expected 1 to 5, the experts a token may choose from",
        ]
    );
    let shrunk = kimi_k2().yarn.map(|yarn| Yarn { factor: 0.5, ..yarn });
    let wrong = Decoder { yarn: shrunk, ..kimi_k2() }.check().unwrap_err();
    assert_eq!(wrong[0].to_string(), "`yarn.factor` is 0.5; expected 1 or more");
    assert_eq!(nano().check(), Ok(()));
    assert_eq!(deepseek_v3().check(), Ok(()));
}

#[test]
fn a_decoder_and_its_graph_survive_being_written() {
    let text = serde_json::to_string(&nano().expand()).unwrap();
    assert_eq!(serde_json::from_str::<GraphSource>(&text).unwrap(), nano().expand());
    let text = serde_json::to_string(&kimi_k2()).unwrap();
    assert_eq!(serde_json::from_str::<Decoder>(&text).unwrap(), kimi_k2());
}
