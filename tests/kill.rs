//! Killing the process at any moment loses nothing: the resumed run is the uninterrupted one.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use runtime::checkpoint::{State, latest};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn troupe(arguments: &[&str], cache: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_troupe"))
        .args(arguments)
        .current_dir(root())
        .env("TROUPE_CACHE", cache)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn finish(arguments: &[&str], cache: &Path) {
    let status = troupe(arguments, cache).wait().unwrap();
    assert!(status.success(), "{arguments:?}: {status}");
}

fn state(dir: &Path) -> State {
    State::load(&latest(dir).unwrap().expect("a checkpoint")).unwrap()
}

/// Runs a job of so many steps whole, and once more with so many kills; compares the ends.
fn compare(job: &str, more: &[&str], steps: u64, kills: usize) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let path = |name: &str| folder.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let whole = text(&path("whole"));
    finish(&[&["run", job, "--dir", &whole, "--quiet"], more].concat(), &cache);

    let dir = path("killed");
    let killed = text(&dir);
    let seed = std::process::id() as u64;
    println!("seed of the moments: {seed}");
    let mut reached = Vec::new();
    for kill in 0..kills {
        let mut child = match dir.join("job.ron").exists() && dir.join("tokenizer.json").exists() {
            false => {
                let _ = std::fs::remove_dir_all(&dir);
                troupe(&[&["run", job, "--dir", &killed, "--quiet"], more].concat(), &cache)
            }
            true => troupe(&["resume", &killed, "--quiet"], &cache),
        };
        let mixed = (seed + kill as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        sleep(Duration::from_millis(20 + mixed % 400));
        child.kill().unwrap();
        child.wait().unwrap();
        reached.push(latest(&dir).ok().flatten().map_or(0, |folder| state_step(&folder)));
    }
    println!("steps reached at each kill: {reached:?}");
    finish(&["resume", &killed, "--quiet"], &cache);
    let (whole, killed) = (state(&path("whole")), state(&dir));
    assert_eq!((whole.step, whole.tokens, &whole.feed), (steps, killed.tokens, &killed.feed));
    assert_eq!(whole.tensors.len(), killed.tensors.len());
    for (name, tensor) in &whole.tensors {
        assert!(tensor.bytes() == killed.tensors[name].bytes(), "{name} differs");
    }
}

#[test]
fn a_run_killed_twenty_times_ends_like_one_that_was_not() {
    compare("tests/jobs/tiny.ron", &["--set", "stop=Steps(300)"], 300, 20);
}

#[test]
fn a_run_in_phases_killed_ten_times_ends_like_one_that_was_not() {
    compare("tests/jobs/phases.ron", &[], 36, 10);
}

#[test]
fn an_interrupt_saves_and_says_so_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let dir = folder.path().join("run");
    let path = dir.to_str().unwrap().to_string();
    let steps = "stop=Steps(100000)";
    let mut child =
        troupe(&["run", "tests/jobs/tiny.ron", "--set", steps, "--dir", &path, "--quiet"], &cache);
    while latest(&dir).ok().flatten().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        sleep(Duration::from_millis(20));
    }
    let before = state_step(&latest(&dir).unwrap().unwrap());
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let after = state(&dir);
    assert!(before <= after.step && after.step < 100_000, "{before}, {}", after.step);
}

fn state_step(folder: &Path) -> u64 {
    State::load(folder).map_or(0, |state| state.step)
}
