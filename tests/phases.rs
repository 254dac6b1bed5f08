//! A run in phases is one run: rates, lengths and texts change at the borders, and nothing is lost
//! there, whether the process goes through a border or ends and goes on at it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use graphs::Decoder;
use jobs::{Request, huggingface, load};
use ops::{DType, Yarn};
use runtime::{
    Inference,
    checkpoint::{Index, State, all},
};
use serde_json::Value;

const JOB: &str = "tests/jobs/phases.ron";

/// Steps at which the phases of the job end.
const ENDS: [u64; 3] = [20, 28, 36];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A folder with runs of the job.
struct Runs(tempfile::TempDir);

impl Runs {
    fn new() -> Self {
        Runs(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn troupe(&self, arguments: &[&str]) -> Output {
        let mut troupe = Command::new(env!("CARGO_BIN_EXE_troupe"));
        troupe.args(arguments).current_dir(root()).env("TROUPE_CACHE", self.path("cache"));
        let output = troupe.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        output
    }

    /// Trains the job in a folder of this name; more arguments may follow.
    fn run(&self, name: &str, more: &[&str]) -> Output {
        let dir = self.path(name);
        self.troupe(&[&["run", JOB, "--dir", dir.to_str().unwrap()], more].concat())
    }

    /// Begins a run with one checkpoint of another and goes on with it.
    fn resume(&self, name: &str, from: &Path) -> Output {
        let dir = self.path(name);
        let to = dir.join(from.file_name().unwrap());
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        self.troupe(&["resume", dir.to_str().unwrap()])
    }
}

fn steps(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn newest(dir: &Path) -> State {
    State::load(all(dir).unwrap().last().unwrap()).unwrap()
}

fn same(a: &State, b: &State, which: &str) {
    assert_eq!((a.step, a.tokens, &a.phase), (b.step, b.tokens, &b.phase), "{which}");
    assert_eq!(a.feed, b.feed, "{which}");
    assert_eq!(a.tensors.len(), b.tensors.len());
    assert!(a.tensors.keys().any(|name| name.starts_with("optimizer.momentum.")));
    assert!(a.tensors.keys().any(|name| name.starts_with("optimizer.second_moment.")));
    for (name, tensor) in &a.tensors {
        assert!(tensor.bytes() == b.tensors[name].bytes(), "{which}: {name} differs");
    }
}

#[test]
fn rates_lengths_and_names_change_at_the_borders_and_the_loss_falls_through_all_phases() {
    let runs = Runs::new();
    let told = String::from_utf8(runs.run("whole", &[]).stderr).unwrap();
    for line in [
        "phase  main: steps 1 to 20",
        "step   16 sequences of 64 tokens, 4 microbatches on each rank",
        "phase  long: steps 29 to 36",
        "step   4 sequences of 256 tokens, 2 microbatches on each rank",
        "main  step 20/20  loss",
        "long  step 36/36  loss",
    ] {
        assert!(told.contains(line), "no `{line}` in\n{told}");
    }
    let steps = steps(&runs.path("whole"));
    assert_eq!(steps.len() as u64, ENDS[2]);
    let at = |step: u64, field: &str| steps[step as usize - 1][field].clone();
    let lr = |step: u64| at(step, "lr").as_f64().unwrap();
    let close = |step, expected: f64| assert!((lr(step) - expected).abs() < 1e-15, "{step}");
    for (step, expected) in [(1, 0.0025), (4, 0.01), (12, 0.01), (16, 0.007), (20, 0.004)] {
        close(step, expected);
    }
    for (step, expected) in [(24, 0.0025), (28, 0.001), (29, 0.001), (36, 0.001)] {
        close(step, expected);
    }
    let phases: Vec<Value> = (1..=ENDS[2]).map(|step| at(step, "phase")).collect();
    assert!(phases[..20].iter().all(|it| it == "main"));
    assert!(phases[20..28].iter().all(|it| it == "anneal"));
    assert!(phases[28..].iter().all(|it| it == "long"));
    assert!((1..=ENDS[2]).all(|step| at(step, "tokens").as_u64() == Some(1024 * step)));
    let mean = |range: std::ops::RangeInclusive<u64>| {
        let count = range.clone().count() as f64;
        range.map(|step| at(step, "loss").as_f64().unwrap()).sum::<f64>() / count
    };
    assert!(mean(17..=20) < mean(1..=4) - 1.0, "{} {}", mean(1..=4), mean(17..=20));
    assert!(mean(25..=28) < mean(17..=20), "{} {}", mean(17..=20), mean(25..=28));
    assert!(mean(33..=36) < mean(17..=20), "{} {}", mean(17..=20), mean(33..=36));
}

#[test]
fn a_run_that_goes_on_inside_any_phase_or_at_a_border_is_the_run_that_did_not_stop() {
    let runs = Runs::new();
    runs.run("whole", &["--quiet"]);
    let folders = all(&runs.path("whole")).unwrap();
    let whole = newest(&runs.path("whole"));
    assert_eq!((whole.step, whole.phase.as_deref()), (ENDS[2], Some("long")));
    for (step, phase) in [(7, "main"), (20, "main"), (23, "anneal"), (28, "anneal"), (33, "long")] {
        let folder = &folders[step - 1];
        assert_eq!(Index::read(folder).unwrap().phase.as_deref(), Some(phase), "{step}");
        let name = format!("from {step}");
        runs.resume(&name, folder);
        same(&whole, &newest(&runs.path(&name)), &name);
    }
}

#[test]
fn a_run_that_stops_in_each_phase_is_the_run_that_did_not() {
    let runs = Runs::new();
    runs.run("whole", &["--quiet"]);
    let first = all(&runs.path("whole")).unwrap()[12].clone();
    runs.resume("in the first", &first);
    let second = all(&runs.path("in the first")).unwrap();
    let second = second.iter().find(|path| path.ends_with("step-00000025")).unwrap();
    runs.resume("in the second", second);
    same(&newest(&runs.path("whole")), &newest(&runs.path("in the second")), "twice");
    let plan = ["--quiet", "--plan", "one", "--set", "actors.learner.phases.2.plan.mesh.pp=4"];
    runs.run("another plan", &plan);
    let other = newest(&runs.path("another plan"));
    same(&newest(&runs.path("whole")), &other, "lanes make plans alike");
}

#[test]
fn the_export_has_the_rotation_and_the_context_of_the_last_phase() {
    let runs = Runs::new();
    runs.run("whole", &["--quiet"]);
    let whole = runs.path("whole");
    let export = whole.join("export");
    let read = huggingface::read(&export).unwrap();
    let yarn = Yarn {
        factor: 4.0,
        original: 64,
        beta_fast: 8.0,
        beta_slow: 1.0,
        mscale: 1.0,
        mscale_all_dim: 1.0,
    };
    assert_eq!((read.decoder.yarn.as_ref(), read.positions), (Some(&yarn), 256));
    let config = fs::read_to_string(export.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["rope_scaling"]["factor"], 4.0);
    assert_eq!(config["max_position_embeddings"], 256);

    let text: Vec<i32> = fs::read(root().join("LICENSE-MIT")).unwrap()[..201]
        .iter()
        .map(|&byte| i32::from(byte))
        .collect();
    let nll = |decoder: &Decoder| {
        let graph = graphs::ModelGraph::new(&decoder.expand()).unwrap();
        let inference = Inference::new(graph, &read.tensors, DType::F32).unwrap();
        inference.nll(&text[..200], &text[1..])
    };
    let words = text.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
    let said = |dir: &Path| {
        let asked = ["eval", dir.to_str().unwrap(), "--tokens", &words, "--json"];
        let answer: Value = serde_json::from_slice(&runs.troupe(&asked).stdout).unwrap();
        let values = answer["nll"].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap() as f32).collect::<Vec<_>>()
    };
    let stretched = nll(&Decoder { yarn: Some(yarn), ..read.decoder.clone() });
    assert_eq!(said(&whole), stretched, "the run evaluates what its last phase trained");
    assert_eq!(said(&export), stretched, "and so does the export");
    assert_ne!(nll(&Decoder { yarn: None, ..read.decoder.clone() }), stretched);

    let main = all(&whole).unwrap()[19].clone();
    let early = runs.path("early");
    runs.troupe(&["export", main.to_str().unwrap(), early.to_str().unwrap()]);
    let read = huggingface::read(&early).unwrap();
    assert_eq!((read.decoder.yarn, read.positions), (None, 64), "main was not stretched yet");
}

#[test]
fn stop_ends_a_run_inside_a_phase_and_a_later_stop_changes_nothing() {
    let steps = |stop: &str| {
        let sets = vec![format!("stop={stop}")];
        let job = root().join(JOB).to_str().unwrap().to_string();
        load(&Request { job, sets, ..Request::default() }).unwrap().whole.steps()
    };
    assert_eq!(["Steps(5)", "Steps(25)", "Steps(90)", "None"].map(steps), [5, 25, 36, 36]);
    let tokens = ["Tokens(1)", "Tokens(20480)", "Tokens(20481)", "Tokens(\"1T\")"];
    assert_eq!(tokens.map(steps), [1, 20, 21, 36]);
    let runs = Runs::new();
    let output = runs.run("short", &["--quiet", "--json", "--set", "stop=Steps(22)"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["steps"], &summary["interrupted"]), (&22.into(), &false.into()));
    let phases = summary["phases"].as_array().unwrap();
    let told = phases.iter().map(|it| (it["name"].as_str().unwrap(), it["end"].as_u64().unwrap()));
    assert_eq!(told.collect::<Vec<_>>(), [("main", 20), ("anneal", 22)]);
}

#[test]
fn every_phase_is_checked_before_the_first_step() {
    let runs = Runs::new();
    let dir = runs.path("never");
    let set = "actors.learner.phases.2.context=96";
    let mut troupe = Command::new(env!("CARGO_BIN_EXE_troupe"));
    troupe.args(["run", JOB, "--dir", dir.to_str().unwrap(), "--set", set]).current_dir(root());
    let output = troupe.output().unwrap();
    let page = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{page}");
    assert!(page.contains("in this phase") && !page.contains("step 1"), "{page}");
    assert!(!dir.join("job.ron").exists());
}
