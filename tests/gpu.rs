//! The same jobs on a GPU: losses beside the processor's, equal bits under all plans, states that
//! go on in either place, refusals; and the script for a machine that has one.
//!
//! Where there is no GPU, the program runs on the emulation of the driver (`kernels/tests/shim`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use runtime::trace::Notes;
use serde_json::Value;

#[path = "../kernels/tests/emulation/mod.rs"]
mod emulation;

use emulation::{Emulation, PLAIN, WATCHED};

const JOB: &str = "tests/jobs/gpu.ron";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Runs the program on the machine's GPU, or on an emulation, with changed surroundings.
fn troupe(arguments: &[&str], settings: &[(&str, &str)]) -> Option<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troupe"));
    if kernels::cuda::probe().is_err() {
        Emulation::new(PLAIN)?.settle(&mut command);
    }
    let command = command.args(arguments).current_dir(root()).envs(settings.iter().copied());
    Some(command.output().unwrap())
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> Option<String> {
    let output = troupe(arguments, &[])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}\n{error}", output.status);
    Some(error)
}

/// Losses of the steps in a folder of a run.
fn losses(dir: &Path) -> Vec<f64> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap();
    text.lines().map(loss).collect()
}

#[test]
fn losses_on_a_gpu_are_the_processors_but_for_rounding_whatever_the_policies() {
    let folder = tempfile::tempdir().unwrap();
    // In BF16 a product that is rounded the other way moves the choice of an expert sooner.
    for (plan, precision, tolerance) in
        [("one", "F32", 2e-4), ("all", "F32", 2e-4), ("fp8", "Bf16", 2e-2)]
    {
        let [cpu, gpu] = ["Cpu", "Gpu"].map(|device| {
            let dir = folder.path().join(format!("{plan}-{device}"));
            let sets = [format!("device={device}"), format!("precision={precision}")];
            let [device, precision] = &sets;
            let dir = dir.to_str().unwrap().to_string();
            let arguments = ["run", JOB, "--quiet", "--plan", plan, "--dir", &dir, "--set", device];
            let arguments = [&arguments[..], &["--set", precision, "--set", "stop=Steps(4)"]];
            succeeds(&arguments.concat()).map(|_| losses(Path::new(&dir)))
        });
        let (Some(cpu), Some(gpu)) = (cpu, gpu) else { return };
        println!("{plan} {precision}: {cpu:?} and {gpu:?}");
        assert_eq!(gpu.len(), 4);
        for (cpu, gpu) in cpu.iter().zip(&gpu) {
            assert!((cpu - gpu).abs() <= tolerance * cpu, "{plan}, {precision}: {gpu}, {cpu}");
        }
    }
}

#[test]
fn all_plans_give_the_same_bits_on_one_gpu() {
    for precision in ["precision=F32", "precision=Bf16"] {
        let plans = ["--plans", "one,wide,all"];
        let sets = ["--set", "device=Gpu", "--set", precision];
        let arguments = [&["verify", JOB, "--steps", "2"], &plans[..], &sets];
        if succeeds(&arguments.concat()).is_none() {
            return;
        }
    }
}

/// What streams do to the same memory is ordered by events, by the host's waits, or by messages, in
/// steps with everything that copies and sends: ThreadSanitizer watches the emulated streams, and
/// sees it if it is not told that they wait for events.
#[test]
fn streams_touch_the_same_memory_only_one_after_the_other() {
    let Some(emulation) = Emulation::new(WATCHED) else { return };
    for (steps, fault) in [("stop=Steps(2)", ""), ("stop=Steps(1)", "untold")] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let mut command = Command::new(env!("CARGO_BIN_EXE_troupe"));
        emulation.settle(&mut command);
        command.args(["run", JOB, "--plan", "all", "--dir", dir.to_str().unwrap()]);
        command.args(["--set", "device=Gpu", "--set", "precision=Bf16", "--set", steps]);
        command.args(["--set", "actors.learner.batch=128"]);
        // Two ranks share one of three GPUs.
        command.envs([("TROUPE_SHIM_DEVICES", "3"), ("TROUPE_SHIM_FAULT", fault)]);
        let output = command.current_dir(root()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_race = error.contains("ThreadSanitizer: data race");
        assert_eq!(is_race, !fault.is_empty(), "{fault}: {}\n{error}", output.status);
        assert!(is_race || output.status.success(), "{}\n{error}", output.status);
    }
}

/// A recorded step tells when the GPU worked, not when the host asked it to, and pictures read it.
#[test]
fn a_recorded_step_has_the_moments_of_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (dir, trace, page) = (path("run"), path("trace"), path("page.html"));
    let arguments = ["run", JOB, "--plan", "all", "--quiet", "--dir", &dir, "--trace", &trace];
    let sets = ["--trace-step", "1", "--set", "device=Gpu", "--set", "stop=Steps(1)"];
    if succeeds(&[&arguments[..], &sets].concat()).is_none() {
        return;
    }
    let text = fs::read_to_string(Path::new(&trace).join("step-00000001.jsonl")).unwrap();
    let actors: Vec<Notes> =
        text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(actors.len(), 8);
    for notes in &actors {
        let mut reached = 0;
        for &(begin, end) in &notes.instructions {
            assert!(reached <= begin && begin <= end, "one instruction after the other");
            reached = end;
        }
        assert!(reached > 0);
        assert!(notes.copies.iter().all(|&(.., begin, end)| begin < end));
    }
    assert!(actors.iter().any(|notes| !notes.copies.is_empty()));
    succeeds(&["viz", JOB, "--plan", "all", "--trace", &trace, "-o", &page]);
    assert!(fs::read_to_string(page).unwrap().contains("<html"));
}

/// Ranks on GPUs of their own, and two on one, exchange messages and have the bits of one GPU.
#[test]
fn plans_give_the_same_bits_on_any_number_of_gpus() {
    if kernels::cuda::probe().is_ok() {
        return;
    }
    let hashes = |devices: &str, plan: &str| {
        let arguments = ["verify", JOB, "--steps", "2", "--plans", &format!("one,{plan}")];
        let sets = ["--set", "device=Gpu", "--set", "precision=Bf16", "--json"];
        let settings = [("TROUPE_SHIM_DEVICES", devices)];
        let output = troupe(&[&arguments[..], &sets].concat(), &settings)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{devices} GPUs, {plan}: {error}");
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let arguments = ["run", JOB, "--plan", "wide", "--dir", dir.to_str().unwrap()];
    let sets = ["--set", "device=Gpu", "--set", "stop=Steps(1)"];
    let settings = [("TROUPE_SHIM_DEVICES", "3")];
    let Some(output) = troupe(&[&arguments[..], &sets].concat(), &settings) else { return };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("on     3 GPUs"), "all are in use: {text}");
    for plan in ["wide", "all"] {
        let Some(alone) = hashes("1", plan) else { return };
        assert!(!alone.is_empty());
        assert_eq!(hashes("3", plan).as_ref(), Some(&alone), "{plan}");
        assert_eq!(hashes("4", plan), Some(alone), "{plan}");
    }
}

#[test]
fn a_run_goes_on_in_the_other_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    // `device: Auto` takes what the machine has when the run goes on.
    let (with, without) = (&[][..], &[("TROUPE_SHIM_DEVICES", "0"), ("CUDA_VISIBLE_DEVICES", "")]);
    for (name, first, then) in [("up", &without[..], with), ("down", with, &without[..])] {
        let run = |arguments: &[&str], settings: &[(&str, &str)]| {
            let output = troupe(&[arguments, &["--quiet"]].concat(), settings)?;
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{arguments:?}: {error}");
            Some(())
        };
        let (whole, halves) = (text(&format!("whole-{name}")), text(&format!("halves-{name}")));
        let every = "checkpoint=(dir: \"unused\", every: \"2 steps\", keep: 9)";
        let sets = ["--set", "stop=Steps(4)", "--set", every];
        if run(&[&["run", JOB, "--dir", &whole][..], &sets].concat(), first).is_none() {
            return;
        }
        run(&[&["run", JOB, "--dir", &halves][..], &sets].concat(), first);
        fs::remove_dir_all(Path::new(&halves).join("step-00000004")).unwrap();
        run(&["resume", &halves], then);
        let (whole, halves) = (losses(Path::new(&whole)), losses(Path::new(&halves)));
        let (last, again) = (&whole[2..], &halves[halves.len() - 2..]);
        assert_eq!(halves[..2], whole[..2]);
        // One loss may be the same in both places, which differ in a few last bits.
        assert!(last != again, "nobody has moved");
        let are_near = last.iter().zip(again).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(are_near, "{name}: {halves:?} {whole:?}");
    }
}

/// A GPU that no message comes from ends the run with a sentence, and it does not hang.
#[test]
fn a_gpu_that_is_cut_off_or_silent_is_the_runs_failure() {
    if kernels::cuda::probe().is_ok() {
        return;
    }
    for (fault, text) in [
        // Who notices first, a rank that NCCL tells or one that waits, is a matter of time.
        ("broken=2", "failed at a message between GPUs: "),
        ("silent=1", "failed at a message between GPUs: waiting for messages took longer than 20s"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let dir = dir.to_str().unwrap();
        let arguments = ["run", JOB, "--plan", "wide", "--quiet", "--set", "device=Gpu"];
        let settings = [("TROUPE_SHIM_DEVICES", "4"), ("TROUPE_SHIM_FAULT", fault)];
        let Some(output) = troupe(&[&arguments[..], &["--dir", dir]].concat(), &settings) else {
            return;
        };
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(10), "{error}");
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_gpu_that_is_not_there_or_too_small_is_refused_in_a_sentence() {
    let refused = |settings: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let arguments = ["run", JOB, "--set", "device=Gpu", "--dir", dir.to_str().unwrap()];
        let output = troupe(&arguments, settings)?;
        assert!(!dir.join("job.ron").exists(), "nothing is begun");
        Some((output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap()))
    };
    if kernels::cuda::probe().is_ok() {
        return;
    }
    let Some((code, text)) = refused(&[("TROUPE_SHIM_DEVICES", "0")]) else { return };
    assert_eq!(code, 15, "{text}");
    assert!(text.contains("`device: Gpu`: the NVIDIA driver finds no GPU"), "{text}");
    let (code, text) = refused(&[("TROUPE_SHIM_MEMORY", "536900000")]).unwrap();
    assert_eq!(code, 13, "{text}");
    assert!(text.contains("training this model on GPU 0 needs about"), "{text}");
}

#[test]
fn the_script_checks_plans_and_losses_and_fails_if_an_operator_does() {
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::copy(env!("CARGO_BIN_EXE_troupe"), folder.path().join("troupe")).unwrap();
    fs::copy("/bin/false", folder.path().join("on_gpu")).unwrap();
    let mut command = Command::new("bash");
    emulation.settle(&mut command);
    command.env("PATH", "/usr/bin:/bin").env_remove("OUT").arg(root().join("tests/gpu.sh"));
    let output = command.arg(folder.path()).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    for line in [
        "| every kernel against the CPU | skipped | there is no troupe-gpu in ",
        "| every operator against the CPU | FAILED | ",
        "| equal bits of the plans of gpu.ron, F32 | passed | ",
        "| losses of gpu.ron, F32 | passed | 4 losses, apart at most ",
        "| speed | skipped | what is wrong need not be quick |",
    ] {
        assert!(out.contains(line), "{line} in\n{out}");
    }
    assert_eq!(output.status.code(), Some(1));
}
