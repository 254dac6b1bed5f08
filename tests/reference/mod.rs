//! Troupe against numbers that PyTorch computed: what `check.py` compares, without Python.
//!
//! The golden files hold, for each tensor, norm, largest value and five values of the PyTorch
//! side. `run.sh --bless` rewrites them; nothing in Rust does.

use std::{fs, path::Path};

use ops::Tensor;
use serde_json::Value;

mod cases;
mod compute;

use self::compute::Tensors;

// Largest difference relative to the largest value of a tensor, as in `check.py`, which says why.
const LOGITS: f64 = 1e-5;
const LOSS: f64 = 1e-6;
const GRADIENT: f64 = 2e-5;
const LOSSES: f64 = 2e-6;
const MAX_LOGITS: f64 = 1e-5;
const PARAMETER: f64 = 2e-4;

fn check(name: &str) {
    let case = cases::cases().into_iter().find(|case| case.name == name).unwrap();
    println!("seed {}, {}", case.seed, case.title);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/golden");
    let golden = fs::read_to_string(golden.join(format!("{name}.json"))).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    // Through text, as the golden file went.
    let said = serde_json::to_value(&case).unwrap().to_string();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, golden["case"], "the case has changed: tests/reference/run.sh --bless");
    let input = compute::input(&case).unwrap();
    let computed = compute::compute(&case, &input).unwrap();
    check_numbers("loss", &[computed.loss], &golden["loss"], LOSS);
    check_digest("logits", &computed.logits, &golden["logits"], LOGITS);
    if case.steps == 0 {
        return;
    }
    let trained = computed.trained;
    assert!(trained.clipped_heads > 0, "QK-Clip never acted");
    assert_eq!(trained.clipped_heads as u64, golden["clipped_heads"]);
    check_numbers("losses", &trained.losses, &golden["losses"], LOSSES);
    let max_logits: Vec<f64> =
        trained.max_logits.concat().concat().into_iter().map(f64::from).collect();
    check_numbers("max_logits", &max_logits, &golden["max_logits"], MAX_LOGITS);
    check_tensors("gradient", &trained.gradients, &golden["gradient"], GRADIENT);
    check_tensors("parameter", &trained.parameters, &golden["parameter"], PARAMETER);
}

/// All numbers of a nest of lists.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(parts) => parts.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn check_numbers(what: &str, ours: &[f64], golden: &Value, allowed: f64) {
    let theirs = numbers(golden);
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let most = theirs.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    check_all(what, ours, &theirs, most * allowed);
}

fn check_all(what: &str, ours: &[f64], theirs: &[f64], allowed: f64) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        let apart = (ours - theirs).abs();
        assert!(apart <= allowed, "{what}: expected {theirs}, got {ours}, allowed {allowed:e}");
    }
}

fn check_tensors(kind: &str, ours: &Tensors, golden: &Value, allowed: f64) {
    let golden = golden.as_object().unwrap();
    let names: Vec<&String> = ours.keys().collect();
    let mut expected: Vec<&String> = golden.keys().collect();
    expected.sort();
    assert_eq!(names, expected, "{kind}");
    for (name, tensor) in ours {
        check_digest(&format!("{kind} of {name}"), tensor, &golden[name], allowed);
    }
}

/// Compares norm, largest value and five values, evenly spaced from the first to the last.
fn check_digest(what: &str, tensor: &Tensor, golden: &Value, allowed: f64) {
    let values: Vec<f64> = tensor.f32().iter().map(|x| f64::from(*x)).collect();
    let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    let most = values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let at: Vec<f64> = (0..5).map(|i| values[i * (values.len() - 1) / 4]).collect();
    check_numbers(&format!("norm of {what}"), &[norm], &golden["norm"], allowed);
    check_numbers(&format!("largest of {what}"), &[most], &golden["max"], allowed);
    check_all(what, &at, &numbers(&golden["at"]), allowed * golden["max"].as_f64().unwrap());
}

#[test]
fn plain_queries_meet_pytorch() {
    check("plain");
}

#[test]
fn low_rank_queries_and_interleaved_chunks_meet_pytorch() {
    check("low-rank");
}

#[test]
fn groups_of_experts_and_late_weight_gradients_meet_pytorch() {
    check("grouped");
}

#[test]
fn stretched_rotations_and_replicas_meet_pytorch() {
    check("stretched");
}

#[test]
fn the_logits_of_k2_nano_meet_pytorch() {
    check("k2-nano");
}
