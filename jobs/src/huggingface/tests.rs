//! Folders are written and read back; another test loads them with transformers itself.

use std::{collections::BTreeMap, fs, path::Path};

use graphs::decoder::Decoder;
use ops::{DType, Tensor, Yarn};
use serde_json::{Value, json};

use super::*;
use crate::data::{Choice, Tokenizer};

fn decoder() -> Decoder {
    Decoder {
        layers: 3,
        dense_layers: 1,
        hidden: 16,
        dense_width: 24,
        vocab: 260,
        heads: 2,
        q_rank: Some(12),
        kv_rank: 8,
        nope: 8,
        rope: 4,
        value: 6,
        experts: 4,
        experts_per_token: 2,
        shared_experts: 1,
        expert_width: 10,
        groups: 2,
        groups_per_token: 1,
        scaling: 2.827,
        rope_theta: 50000.0,
        yarn: None,
        norm_eps: 1e-6,
        init_std: 0.02,
    }
}

fn yarn() -> Yarn {
    Yarn {
        factor: 32.0,
        original: 64,
        beta_fast: 1.0,
        beta_slow: 1.0,
        mscale: 1.0,
        mscale_all_dim: 1.0,
    }
}

fn shapes(decoder: &Decoder) -> Vec<(String, Vec<usize>)> {
    expected(Path::new("unused"), decoder).unwrap()
}

/// Values that differ everywhere and are exact in BF16.
fn tensors(decoder: &Decoder) -> BTreeMap<String, Tensor> {
    let filled = |(name, shape): (String, Vec<usize>)| {
        let count: usize = shape.iter().product();
        let first = name.bytes().map(usize::from).sum::<usize>();
        let values = (0..count).map(|i| ((first + i * 7) % 128) as f32 / 256.0 - 0.25);
        (name, Tensor::from_f32(&shape, values.collect()))
    };
    shapes(decoder).into_iter().map(filled).collect()
}

fn bytes() -> Tokenizer {
    let none = Box::new(std::iter::empty());
    Tokenizer::open(&Choice::Bytes, none, Path::new("unused")).unwrap()
}

fn written(dir: &Path, decoder: &Decoder, dtype: DType) {
    write(dir, decoder, 64, &tensors(decoder), &bytes(), dtype).unwrap();
}

/// Writes a folder, changes its configuration, and returns what reading says.
fn refusal(change: impl Fn(&mut Value)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    written(&folder, &decoder(), DType::F32);
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    read(&folder).unwrap_err().to_string()
}

#[test]
fn a_folder_reads_back_as_the_model_it_was_written_from() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let plain = decoder();
    let stretched = Decoder { yarn: Some(yarn()), q_rank: None, ..decoder() };
    let alone = Decoder { shared_experts: 0, ..decoder() };
    let odd = Yarn { mscale: 0.5, mscale_all_dim: 0.0, ..yarn() };
    let odd = Decoder { yarn: Some(odd), ..decoder() };
    for decoder in [plain, stretched, alone, odd] {
        for dtype in [DType::F32, DType::Bf16] {
            written(&folder, &decoder, dtype);
            let imported = read(&folder).unwrap();
            assert_eq!(imported.decoder, decoder);
            assert_eq!(imported.positions, if decoder.yarn.is_some() { 2048 } else { 64 });
            for (name, tensor) in tensors(&decoder) {
                let exact = name.ends_with("e_score_correction_bias");
                let read = &imported.tensors[&name];
                assert_eq!(read.dtype(), if exact { DType::F32 } else { dtype }, "{name}");
                assert_eq!(read.f32(), tensor.f32(), "{name}");
            }
        }
    }
}

#[test]
fn the_tokenizer_stands_beside_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    written(&folder, &decoder(), DType::F32);
    let none = Box::new(std::iter::empty());
    let choice = Choice::File(folder.join("tokenizer.json"));
    let tokenizer = Tokenizer::open(&choice, none, dir.path()).unwrap();
    assert_eq!((tokenizer.end(), tokenizer.vocab()), (256, 257));
    assert_eq!(read(&folder).unwrap().tokenizer, Some(bytes().to_json().unwrap()));
}

#[test]
fn many_shards_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    written(&folder, &decoder(), DType::F32);
    fs::remove_file(folder.join("model-00001-of-00001.safetensors")).unwrap();
    let all = tensors(&decoder());
    write::put_tensors(&folder, &shapes(&decoder()), &decoder(), &all, DType::F32, 4096).unwrap();
    assert!(fs::read_dir(&folder).unwrap().count() > 8);
    let imported = read(&folder).unwrap();
    assert_eq!(imported.tensors.len(), all.len());
}

#[test]
fn every_tensor_that_does_not_fit_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let mut all = tensors(&decoder());
    all.remove("lm_head.weight");
    all.insert("model.norm.weight".into(), Tensor::from_f32(&[3], vec![0.0; 3]));
    let error = write(&folder, &decoder(), 64, &all, &bytes(), DType::F32).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("lm_head.weight: expected [260, 16], got none"), "{text}");
    assert!(text.contains("model.norm.weight: expected [16], got [3]"), "{text}");
    assert!(!folder.exists());
    let text = refusal(|config| config["num_hidden_layers"] = json!(2));
    let extra = "model.layers.2.mlp.experts.0.down_proj.weight: expected none, got [16, 10]";
    assert!(text.contains(extra), "{text}");
}

#[test]
fn a_configuration_of_another_model_is_refused_field_by_field() {
    let text = refusal(|config| {
        config["model_type"] = json!("llama");
        config["scoring_func"] = json!("softmax");
        config["hidden_size"] = json!("wide");
        config["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    });
    for problem in [
        "model_type: expected \"deepseek_v3\" or \"kimi_k2\", got \"llama\"",
        "scoring_func: expected \"sigmoid\", got \"softmax\"",
        "hidden_size: expected a whole number, got \"wide\"",
        "rope_scaling.type: expected \"yarn\"",
    ] {
        assert!(text.contains(problem), "{text}");
    }
}

#[test]
fn the_newer_form_of_the_rotation_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    let stretched = Decoder { yarn: Some(yarn()), ..decoder() };
    written(&folder, &stretched, DType::F32);
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut rotation = config["rope_scaling"].take();
    rotation["rope_theta"] = config["rope_theta"].take();
    config["rope_parameters"] = rotation;
    fs::write(&path, config.to_string()).unwrap();
    assert_eq!(read(&folder).unwrap().decoder, stretched);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "years").unwrap();
    let all = tensors(&decoder());
    let error = write(dir.path(), &decoder(), 64, &all, &bytes(), DType::F32).unwrap_err();
    assert!(matches!(error, FolderError::Taken { .. }), "{error}");
    assert!(dir.path().join("thesis.txt").exists());
}
