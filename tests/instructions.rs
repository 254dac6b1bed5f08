//! Which instructions the products use can be chosen from outside.

use std::process::{Command, Output};

fn bench(isa: &str) -> Output {
    let mut troupe = Command::new(env!("CARGO_BIN_EXE_troupe"));
    let small = ["--set", "model.layers=2", "--sequences", "2", "--context", "32", "--steps", "1"];
    troupe.args(["bench", "k2-nano", "--plan", "one", "--json"]).args(small);
    troupe.env("TROUPE_ISA", isa).output().unwrap()
}

#[test]
fn a_step_runs_with_plain_instructions_too() {
    let output = bench("portable");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn instructions_that_are_not_there_are_refused_with_those_that_are() {
    let output = bench("mmx");
    assert_eq!(output.status.code(), Some(15));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("TROUPE_ISA is `mmx`; this processor has"), "{said}");
    assert!(said.contains("portable"), "{said}");
}
