//! Every example runs to its end and says what it promises.
//!
//! `cargo test` builds the examples beside the tests; `cargo test --test house` alone does not,
//! and then this module says what it skipped.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The compiled example, if it was built: next to the folder of this test.
fn built(example: &str) -> Option<PathBuf> {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).expect("a test lies in <profile>/deps");
    let name = format!("{example}{}", env::consts::EXE_SUFFIX);
    Some(profile.join("examples").join(name)).filter(|path| path.exists())
}

/// What an example prints, if it was built.
fn printed(example: &str) -> Option<String> {
    let Some(program) = built(example) else {
        eprintln!("skipped: {example} is not built; `cargo build --examples` does it");
        return None;
    };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let output = Command::new(program).current_dir(repository).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {}\n{complaint}", output.status);
    Some(text)
}

fn check(example: &str, line: &str) {
    let Some(text) = printed(example) else { return };
    assert!(text.lines().any(|found| found.contains(line)), "no `{line}` in\n{text}");
}

/// An example that trains to step 40: its loss falls from that of chance, ln 256, by more than a
/// third. What it reads are sources, which change, so no loss is expected to the digit.
fn check_learns(example: &str) {
    let Some(text) = printed(example) else { return };
    let last = text.lines().find_map(|line| line.strip_prefix("step 40  loss "));
    let loss = last.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    assert!(loss.is_some_and(|loss| loss < 5.545 * 2.0 / 3.0), "{example}:\n{text}");
}

#[test]
fn schedules_are_printed() {
    check("01_read_a_schedule", "stage 0: 0F0 0F1 0F2 0F3   .   .   .   .   .   . 0B0");
}

#[test]
fn an_operator_agrees_with_central_differences() {
    check("02_one_operator", "they agree within a thousandth");
}

#[test]
fn a_job_is_explained_level_by_level() {
    check("03_explain_a_job", "receive combine 0/0 mb 0");
}

#[test]
fn a_small_model_trains_on_one_stage() {
    check_learns("04_train_on_one_stage");
}

#[test]
fn four_stages_give_the_same_losses() {
    check("05_train_on_four_stages", "the same bits");
}

#[test]
fn experts_on_two_ranks_give_the_same_losses() {
    check("06_experts_on_two_ranks", "the same bits");
}

#[test]
fn a_model_that_is_no_decoder_trains() {
    check_learns("07_a_model_of_ones_own");
}

#[test]
fn the_clip_is_drawn() {
    check("08_qk_clip", "dashed: tau = 8, 8.000");
}
