//! A run over several processes is the run of one: the same bits, the same files, the same ends.
//!
//! What needs MPI is skipped, and says so, unless the tests are built with `--features mpi` and
//! there is an `mpirun`.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    rc::Rc,
    thread::sleep,
    time::{Duration, Instant},
};

use graphs::{
    PlanSpec,
    mesh::Mesh,
    plan::{Instruction, Side},
};
use kernels::mpi::{Received, World};
use runtime::{
    Cluster, Feed, FeedError, RunError, Setup,
    checkpoint::{State, latest},
    processes::{self, Next, Processes},
};

use crate::small::{self, Numbers};

const JOB: &str = "tests/jobs/tiny.ron";

/// Longer than any of these runs takes, and any end of one.
const LIMIT: Duration = Duration::from_secs(300);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Whether runs can go over processes here; says why not.
fn has_mpi() -> bool {
    let starts = || Command::new("mpirun").arg("--version").output().is_ok();
    match (cfg!(feature = "mpi"), starts()) {
        (true, true) => return true,
        (false, _) => println!("skipped: built without `--features mpi`"),
        (true, false) => println!("skipped: there is no mpirun"),
    }
    false
}

/// A program in so many processes.
fn together(count: usize, program: &Path) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none", "-n", &count.to_string()]);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.arg("--allow-run-as-root");
    }
    command.arg(program).current_dir(root());
    command
}

fn troupe() -> PathBuf {
    env!("CARGO_BIN_EXE_troupe").into()
}

/// `troupe` in so many processes; in one without mpirun.
fn started(count: usize, cache: &Path, arguments: &[&str]) -> Command {
    let mut command = match count {
        1 => Command::new(troupe()),
        _ => together(count, &troupe()),
    };
    command.args(arguments).current_dir(root()).env("TROUPE_CACHE", cache);
    command
}

fn finish(count: usize, cache: &Path, arguments: &[&str]) -> String {
    let output = started(count, cache, arguments).output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{count} processes, {arguments:?}: {text}");
    text
}

fn said(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{out}\n{error}")
}

/// A folder with a cache, and names of runs in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, job: &str, count: usize, name: &str, more: &[&str]) -> String {
        let dir = self.path(name);
        let dir = dir.to_str().unwrap();
        finish(count, &self.cache(), &[&["run", job, "--dir", dir], more].concat())
    }
}

/// What a step leaves in the metrics and does not depend on time.
fn steps(dir: &Path) -> Vec<(u64, u64, u64, u64)> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let step = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let bits = |name: &str| line[name].as_f64().unwrap().to_bits();
        let step = line["step"].as_u64().unwrap();
        (step, bits("loss"), bits("grad_norm"), bits("max_logit"))
    };
    text.lines().map(step).collect()
}

fn compare(one: &Path, other: &Path) {
    assert_eq!(steps(one), steps(other), "{}", other.display());
    let state = |dir: &Path| State::load(&latest(dir).unwrap().expect("a checkpoint")).unwrap();
    let (one, other) = (state(one), state(other));
    assert_eq!((one.step, one.tokens, &one.feed), (other.step, other.tokens, &other.feed));
    assert_eq!(one.tensors.len(), other.tensors.len());
    assert!(100 < one.tensors.len(), "only {} tensors", one.tensors.len());
    for (name, tensor) in &one.tensors {
        assert!(tensor.bytes() == other.tensors[name].bytes(), "{name} differs");
    }
}

#[test]
fn any_number_of_processes_gives_the_losses_and_tensors_of_one() {
    if !has_mpi() {
        return;
    }
    let (folder, six) = (Folder::new(), ["--set", "stop=Steps(6)"]);
    folder.run(JOB, 1, "one", &six);
    for count in [2, 3, 4] {
        let text = folder.run(JOB, count, "several", &six);
        assert!(text.contains(&format!("the processors of {count} processes")), "{text}");
        let words = text.matches("word frequencies alone: ").count();
        assert_eq!(words, 1, "one process speaks: {text}");
        compare(&folder.path("one"), &folder.path("several"));
        fs::remove_dir_all(folder.path("several")).unwrap();
    }
    let traced = folder.path("trace");
    let trace = ["--trace", traced.to_str().unwrap(), "--trace-step", "2"];
    folder.run(JOB, 2, "traced", &[&six[..], &trace].concat());
    compare(&folder.path("one"), &folder.path("traced"));
    assert!(fs::read_dir(traced).unwrap().next().is_some(), "a recorded step");
}

#[test]
fn a_run_in_phases_goes_through_its_borders_together() {
    if !has_mpi() {
        return;
    }
    let (folder, job) = (Folder::new(), "tests/jobs/phases.ron");
    folder.run(job, 1, "one", &[]);
    folder.run(job, 2, "two", &[]);
    compare(&folder.path("one"), &folder.path("two"));
}

#[test]
fn a_run_goes_on_with_any_other_number_of_processes() {
    if !has_mpi() {
        return;
    }
    let folder = Folder::new();
    folder.run(JOB, 1, "whole", &["--set", "stop=Steps(6)"]);
    folder.run(JOB, 2, "moved", &["--set", "stop=Steps(6)"]);
    let dir = folder.path("moved");
    for count in [3, 1, 4] {
        fs::remove_dir_all(dir.join("step-00000006")).unwrap();
        assert_eq!(State::load(&latest(&dir).unwrap().unwrap()).unwrap().step, 4);
        finish(count, &folder.cache(), &["resume", dir.to_str().unwrap(), "--quiet"]);
        compare(&folder.path("whole"), &dir);
    }
}

#[test]
fn what_cannot_go_over_processes_is_refused_by_one_voice() {
    if !has_mpi() {
        return;
    }
    let folder = Folder::new();
    let dir = folder.path("run");
    let run = ["run", JOB, "--dir", dir.to_str().unwrap()];
    let cases: [(usize, &[&str], i32, &str); 5] = [
        (2, &["verify", JOB], 2, "only `run` and `resume` go over several processes"),
        (5, &run, 2, "the plan has 4 ranks for 5 processes"),
        (2, &[&run[..], &["--set", "device=Gpu"]].concat(), 2, "ranks compute on the processor"),
        (2, &[&run[..], &["--set", "plans.split.mesh.ppp=2"]].concat(), 3, "unknown field"),
        (3, &["resume", dir.to_str().unwrap()], 15, "no checkpoint"),
    ];
    for (count, arguments, code, sentence) in cases {
        let output = started(count, &folder.cache(), arguments).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert_eq!(text.matches(sentence).count(), 1, "{arguments:?}: {text}");
    }
    assert!(!dir.join("job.ron").exists(), "nothing began");
}

#[test]
fn what_one_process_cannot_begin_is_told_by_the_first_with_its_exit_code() {
    if !has_mpi() {
        return;
    }
    let folder = Folder::new();
    let dir = folder.path("run");
    let arguments = ["run", JOB, "--dir", dir.to_str().unwrap(), "--quiet"];
    let mut command = together(1, &troupe());
    command.args(arguments).env("TROUPE_CACHE", folder.cache());
    command.args([":", "-n", "1"]).arg(troupe()).args(["run", "tests/jobs/missing.ron"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let code = end(&mut child, Duration::from_secs(60));
    let text = said(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("error: process 1: ") && text.contains("missing.ron"), "{text}");
}

#[test]
fn a_program_without_mpi_does_not_run_a_job_several_times() {
    if cfg!(feature = "mpi") {
        return println!("skipped: built with MPI");
    }
    let folder = Folder::new();
    let of = |number: &str, arguments: &[&str]| {
        let mut command = started(1, &folder.cache(), arguments);
        command.env("OMPI_COMM_WORLD_SIZE", "2").env("OMPI_COMM_WORLD_RANK", number);
        let output = command.output().unwrap();
        (output.status.code(), said(&output))
    };
    let dir = folder.path("run");
    let run = ["run", JOB, "--dir", dir.to_str().unwrap()];
    let (code, text) = of("0", &run);
    assert_eq!(code, Some(15), "{text}");
    assert!(text.contains("2 processes were started together"), "{text}");
    assert!(text.contains("cargo build --release --features mpi"), "{text}");
    assert_eq!(of("1", &run), (Some(15), "\n".into()));
    let (code, text) = of("0", &["explain", "exit"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(!dir.exists(), "nothing began");
}

/// The process of a number among those that an mpirun has started.
fn process(mpirun: &Child, number: usize) -> u32 {
    let rank = format!("OMPI_COMM_WORLD_RANK={number}");
    let own = format!("PPid:\t{}\n", mpirun.id());
    let is_it = |pid: &u32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let environment = read("environ");
        String::from_utf8_lossy(&read("status")).contains(&own)
            && environment.split(|byte| *byte == 0).any(|it| it == rank.as_bytes())
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(is_it).expect("mpirun has started it")
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for an end, which has to come in time.
fn end(child: &mut Child, limit: Duration) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if limit < begin.elapsed() {
            child.kill().unwrap();
            panic!("no end within {limit:?}");
        }
        sleep(Duration::from_millis(50));
    }
}

/// Starts a run that would not end by itself, waits for its first checkpoint, hands it over and
/// waits for its end.
fn disturbed(disturb: impl FnOnce(&Child)) -> (Option<i32>, Folder) {
    let folder = Folder::new();
    let dir = folder.path("run");
    let (steps, place) = ("stop=Steps(100000)", dir.to_str().unwrap());
    let arguments = ["run", JOB, "--set", steps, "--dir", place, "--quiet"];
    let mut command = started(2, &folder.cache(), &arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while latest(&dir).ok().flatten().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        assert!(begin.elapsed() < LIMIT, "no checkpoint");
        sleep(Duration::from_millis(20));
    }
    disturb(&child);
    (end(&mut child, Duration::from_secs(60)), folder)
}

#[test]
fn a_killed_process_ends_all_and_loses_no_checkpoint() {
    if !has_mpi() {
        return;
    }
    for number in [0, 1] {
        let (code, folder) = disturbed(|mpirun| signal(process(mpirun, number), "-KILL"));
        assert_ne!(code, Some(0), "process {number} was killed");
        let newest = latest(&folder.path("run")).unwrap().unwrap();
        assert!(0 < State::load(&newest).unwrap().step);
    }
}

#[test]
fn an_interrupt_of_the_conductor_saves_and_ends_all_with_its_exit_code() {
    if !has_mpi() {
        return;
    }
    let (code, folder) = disturbed(|mpirun| signal(process(mpirun, 0), "-INT"));
    assert_eq!(code, Some(130));
    let step = State::load(&latest(&folder.path("run")).unwrap().unwrap()).unwrap().step;
    assert!(0 < step && step < 100_000, "{step}");
}

/// Numbers of which the last in a batch is no token, so that only the rank of the last lane fails.
struct Impossible(Box<Numbers>);

impl Feed for Impossible {
    fn next(
        &mut self,
        sequences: usize,
        context: usize,
    ) -> Result<(Vec<i32>, Vec<i32>), FeedError> {
        let (mut tokens, targets) = self.0.next(sequences, context)?;
        tokens.last_mut().into_iter().for_each(|token| *token += 1000);
        Ok((tokens, targets))
    }

    fn position(&self) -> serde_json::Value {
        self.0.position()
    }

    fn seek(&mut self, position: &serde_json::Value) -> Result<(), FeedError> {
        self.0.seek(position)
    }
}

fn split(pp: usize) -> Setup {
    let graph = small::graph(&small::decoder());
    let mesh = Mesh { pp, ep: 2, ..Mesh::default() };
    let plan = small::plan(&graph, &PlanSpec { mesh, ..PlanSpec::default() });
    Setup { patience: Duration::from_millis(700), ..small::setup(graph, plan) }
}

/// What one process of [`ended`] does: a step, or what a fault makes of it.
#[test]
#[ignore = "started by other tests, in several processes"]
fn one_of_several() {
    let fault = std::env::var("FAULT").expect("set by who starts this");
    let all = Rc::new(Processes::join().unwrap());
    let mut setup = split(if fault == "token" { 1 } else { 2 });
    if fault == "message" {
        let program = &mut setup.plan.programs[0][Side::Stage as usize].instructions;
        let lost = program.iter().rposition(|i| matches!(i, Instruction::Send { .. })).unwrap();
        program.remove(lost);
    }
    if fault == "plan" {
        setup.seed += all.number() as u64;
    }
    if !all.conducts() {
        if fault == "silence" {
            signal(std::process::id(), "-STOP");
        }
        processes::follow(setup, &all).unwrap();
        let Next::Leave(code) = all.next(LIMIT).unwrap() else { panic!("another phase") };
        all.leave(code);
        std::process::exit(i32::from(code));
    }
    let feed: Box<dyn Feed> = match &fault[..] {
        "token" => Box::new(Impossible(Numbers::new(64))),
        _ => Numbers::new(64),
    };
    let ended = Cluster::spread(setup, feed, &all).and_then(|mut cluster| cluster.step());
    println!(
        "ended: {}",
        ended.as_ref().map_or_else(RunError::to_string, |it| it.loss.to_string())
    );
    let code = if ended.is_ok() { 0 } else { 10 };
    all.leave(code);
    std::process::exit(i32::from(code));
}

/// How a step in several processes ends: the exit code, and what the conductor says.
fn ended(count: usize, fault: &str) -> (Option<i32>, String) {
    part(count, "processes::one_of_several", fault)
}

/// How a test that is part of another one ends, in several processes.
fn part(count: usize, test: &str, fault: &str) -> (Option<i32>, String) {
    let mut command = together(count, &std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command.env("FAULT", fault).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let code = end(&mut child, Duration::from_secs(120));
    (code, said(&child.wait_with_output().unwrap()))
}

#[test]
fn a_failing_actor_of_another_process_is_named_and_ends_all() {
    if !has_mpi() {
        return;
    }
    let (code, text) = ended(2, "none");
    assert_eq!(code, Some(0), "{text}");
    let alone = Cluster::start(split(2), Numbers::new(64)).unwrap().step().unwrap().loss;
    assert!(text.contains(&format!("ended: {alone}")), "{alone}: {text}");
    let (code, text) = ended(2, "token");
    assert_eq!(code, Some(10), "{text}");
    let (_, told) = text.split_once("ended: stage 0, expert rank 1, ").expect(&text);
    assert!(told.contains("failed at") && told.contains("token"), "{text}");
}

#[test]
fn the_watchdog_sees_who_waits_in_other_processes() {
    if !has_mpi() {
        return;
    }
    let (code, text) = ended(4, "message");
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("no progress for"), "{text}");
    let waits = |who: &str| text.lines().any(|it| it.starts_with(who) && it.contains("waits for"));
    for stage in 0..2 {
        for rank in 0..2 {
            assert!(waits(&format!("stage {stage}, expert rank {rank}")), "{text}");
        }
    }
}

#[test]
fn processes_that_differ_or_do_not_answer_are_told_by_number() {
    if !has_mpi() {
        return;
    }
    let (code, text) = ended(2, "plan");
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("ended: process 1: not the settings of process 0"), "{text}");
    let (code, text) = ended(2, "silence");
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("ended: process 1 does not answer any more"), "{text}");
}

/// Bytes of parts that all send to all at once: none, few, and more than a piece.
const LENGTHS: [usize; 4] = [0, 5, 70 << 20, 1 << 16];

/// A part of a message from one process to another, which no other pair has.
fn content(from: usize, to: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251 + from * 31 + to * 17) as u8).collect()
}

/// What one process of [`large_messages_cross_without_waiting_for_each_other`] does.
#[test]
#[ignore = "started by another test, in several processes"]
fn one_of_many_senders() {
    match World::join() {
        Ok(world) => exchange(world),
        Err(error) => panic!("{error}"),
    }
}

fn exchange(mut world: World) {
    let (own, count) = (world.rank(), world.size());
    let others = || (0..count).filter(|other| *other != own);
    for round in 0..2_u8 {
        for to in others() {
            let parts = LENGTHS.map(|len| content(own, to, len).into());
            world.send(to, &[round], &parts);
        }
    }
    let mut rounds = vec![0_u8; count];
    while world.is_busy() || others().any(|from| rounds[from] < 2) {
        for Received { from, head, parts } in world.go_on() {
            assert_eq!(head, [rounds[from]], "the order of process {from}");
            rounds[from] += 1;
            assert_eq!(parts.len(), LENGTHS.len());
            for (part, len) in parts.into_iter().zip(LENGTHS) {
                assert!(part.into_bytes() == content(from, own, len), "{len} bytes of {from}");
            }
        }
    }
    println!("process {own} has all of {} others", count - 1);
}

#[test]
fn large_messages_cross_without_waiting_for_each_other() {
    if !has_mpi() {
        return;
    }
    let (code, text) = part(3, "processes::one_of_many_senders", "none");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.matches("has all of 2 others").count(), 3, "{text}");
}
