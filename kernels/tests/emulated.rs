//! The device layer, every kernel and messages on an emulation of the NVIDIA driver, NVRTC,
//! cuBLASLt and NCCL.
//!
//! No GPU is involved: `shim/` compiles the CUDA sources as C++ and runs each block's threads as
//! fibers, which ThreadSanitizer watches if asked to. So what is shown is what kernels mean, that
//! they do not race within a block, and that the device layer calls the driver lawfully; neither
//! speed nor the compiler's code. The sources and the calls are those that run on a GPU.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

mod emulation;

use emulation::{Emulation, PLAIN, WATCHED};

/// Runs `troupe-gpu` on an emulation.
fn run(emulation: &Emulation, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = troupe_gpu(arguments);
    emulation.settle(&mut command);
    command.envs(settings.iter().copied());
    finished(command)
}

/// A folder with some of the libraries.
fn part(emulation: &Emulation, name: &str, libraries: &[&str]) -> PathBuf {
    let folder = emulation.folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    for library in libraries {
        fs::copy(emulation.folder.join(library), folder.join(library)).unwrap();
    }
    folder
}

fn troupe_gpu(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_troupe-gpu"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits, but not for ever.
fn finished(mut command: Command) -> Output {
    let child = command.spawn().unwrap();
    let (id, start) = (child.id(), Instant::now());
    let waiting = std::thread::spawn(move || child.wait_with_output().unwrap());
    while !waiting.is_finished() {
        if Duration::from_secs(1200) < start.elapsed() {
            Command::new("kill").args(["-9", &id.to_string()]).status().unwrap();
            panic!("the check hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    waiting.join().unwrap()
}

/// The hash of all outputs of a check in which nothing was wrong.
#[track_caller]
fn outputs(output: &Output) -> String {
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{error}", output.status);
    let (_, hash) = out.trim().rsplit_once("outputs ").expect("a hash");
    assert!(out.contains("no GPU: an emulation for tests"), "{out}");
    hash.to_string()
}

fn fresh_seed() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = now.as_nanos() as u32;
    println!("seed {seed}");
    seed.to_string()
}

#[test]
fn on_the_emulation_every_kernel_agrees_with_the_cpu_in_any_order() {
    let Some(fibers) = Emulation::new(PLAIN) else { return };
    let seed = fresh_seed();
    let forward = outputs(&run(&fibers, &["check", &seed], &[]));
    // The last block and the last thread first.
    let reverse = outputs(&run(&fibers, &["check", &seed], &[("TROUPE_SHIM_ORDER", "reverse")]));
    assert_eq!(forward, reverse, "bits depend on the order of blocks or threads");
}

#[test]
fn on_the_emulation_no_kernel_races_within_a_block() {
    let Some(watched) = Emulation::new(WATCHED) else { return };
    let Some(fibers) = Emulation::new(PLAIN) else { return };
    let seed = fresh_seed();
    let watched_bits = outputs(&run(&watched, &["check", &seed, "brief"], &[]));
    let bits = outputs(&run(&fibers, &["check", &seed, "brief"], &[]));
    assert_eq!(watched_bits, bits, "watching changes bits");
}

/// What has a form for warpgroups has another for devices without them.
#[test]
fn on_the_emulation_products_agree_on_older_devices_too() {
    let Some(watched) = Emulation::new(WATCHED) else { return };
    let Some(fibers) = Emulation::new(PLAIN) else { return };
    let seed = fresh_seed();
    let old = ("TROUPE_SHIM_ARCH", "80");
    let forward = outputs(&run(&fibers, &["products", &seed], &[old]));
    let settings = [old, ("TROUPE_SHIM_ORDER", "reverse")];
    let reverse = outputs(&run(&fibers, &["products", &seed], &settings));
    assert_eq!(forward, reverse, "bits depend on the order of blocks or threads");
    let watched_bits = outputs(&run(&watched, &["products", &seed, "brief"], &[old]));
    let bits = outputs(&run(&fibers, &["products", &seed, "brief"], &[old]));
    assert_eq!(watched_bits, bits, "watching changes bits");
}

#[track_caller]
fn check_refusal(output: &Output, expected: &str) {
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error.trim(), format!("error: {expected}"));
}

#[test]
fn what_is_missing_is_said_in_a_sentence() {
    let mut bare = troupe_gpu(&["check"]);
    bare.env("LD_LIBRARY_PATH", "/nowhere");
    // On a machine with a driver there is nothing to refuse.
    let output = finished(bare);
    if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no NVIDIA") {
        let text = "no NVIDIA driver: libcuda.so.1 was not found; install the driver, or run on \
                    the CPU";
        check_refusal(&output, text);
    }
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let refusal = |name: &str, value: &str| run(&emulation, &["check"], &[(name, value)]);
    check_refusal(
        &refusal("TROUPE_SHIM_DEVICES", "0"),
        "the NVIDIA driver finds no GPU; see `nvidia-smi`, and CUDA_VISIBLE_DEVICES, which may \
         hide it",
    );
    check_refusal(
        &refusal("TROUPE_SHIM_DRIVER", "12040"),
        "the NVIDIA driver is for CUDA 12.4, expected 12.8 or newer (R570); update the driver",
    );
    check_refusal(
        &refusal("TROUPE_SHIM_ARCH", "75"),
        "no GPU: an emulation for tests has compute capability 7.5, expected 8.0 (A100) or newer; \
         run on the CPU",
    );
    check_refusal(
        &refusal("TROUPE_SHIM_MEMORY", "1048576"),
        "the GPU has 1048576 of 1048576 bytes free, 201326592 were asked for; a smaller microbatch, \
         recompute or offload in the plan hold less",
    );
    let alone = part(&emulation, "alone", &["libcuda.so.1"]);
    check_refusal(
        &refusal("LD_LIBRARY_PATH", alone.to_str().unwrap()),
        "NVRTC was not found; `pip install nvidia-cuda-nvrtc` brings it, and its folder has to be \
         on LD_LIBRARY_PATH",
    );
}

/// A run of the messages alone among so many devices, whose limit is short if something is amiss.
fn messages(emulation: &Emulation, devices: &str, settings: &[(&str, &str)]) -> Output {
    let seed = fresh_seed();
    let limit = if settings.is_empty() { "60000" } else { "3000" };
    let settings = [&[("TROUPE_SHIM_DEVICES", devices)], settings].concat();
    run(emulation, &["messages", &seed, limit], &settings)
}

#[test]
fn messages_arrive_among_any_number_of_devices() {
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    for devices in ["1", "2", "3", "4"] {
        let output = messages(&emulation, devices, &[]);
        outputs(&output);
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.contains(&format!("messages by NCCL 2.30.0\nranks: {devices}\n")), "{out}");
    }
}

#[test]
fn messages_do_not_race_with_what_stands_before_and_behind_them() {
    let Some(watched) = Emulation::new(WATCHED) else { return };
    outputs(&messages(&watched, "3", &[]));
}

/// A rank that is missing, silent, cut off or refused ends the others in time, with a sentence.
#[test]
fn faulty_ranks_are_errors_within_the_limit() {
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let of_rank = |rank: usize, action: &str| {
        format!("{action} failed on rank {rank} of 3, which left its communicator: ")
    };
    let late = |action: &str| {
        format!(
            "{action} took longer than 3s on rank 0 of 3, which left its communicator; a rank may \
             have ended, or not asked for its part"
        )
    };
    let (waiting, message) = ("waiting for messages", "a message");
    let broken = "remote process exited or there was a network error, the connection was closed by \
                  the other side";
    for (fault, expected) in [
        ("absent=1", late("joining a communicator")),
        ("silent=2", late(waiting)),
        ("broken=1", of_rank(1, waiting) + broken),
        ("refusing=2", of_rank(2, message) + "unhandled system error, no buffer space available"),
    ] {
        let start = Instant::now();
        check_refusal(&messages(&emulation, "3", &[("TROUPE_SHIM_FAULT", fault)]), &expected);
        assert!(start.elapsed() < Duration::from_secs(30), "{fault}: {:?}", start.elapsed());
    }
}

#[test]
fn without_nccl_a_check_goes_on_and_a_damaged_one_is_an_error() {
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let others = ["libcuda.so.1", "libnvrtc.so", "libcublasLt.so"];
    let folder = part(&emulation, "no-nccl", &others);
    let path = |folder: &Path| folder.display().to_string();
    let output = messages(&emulation, "2", &[("LD_LIBRARY_PATH", &path(&folder))]);
    outputs(&output);
    let text = "messages are not checked: NCCL was not found; `pip install nvidia-nccl-cu13` brings \
                it, and its folder has to be on LD_LIBRARY_PATH";
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains(text), "{out}");
    check_refusal(
        &messages(&emulation, "2", &[("TROUPE_SHIM_NCCL", "21602")]),
        "NCCL cannot be used, install it anew: it is 2.16.2, expected 2.18 or newer",
    );
    let folder = part(&emulation, "half-a-nccl", &others);
    let half = "extern \"C\" int ncclGetVersion(int* v) { *v = 23000; return 0; }";
    library_of(&folder, half, "libnccl.so.2");
    check_refusal(
        &messages(&emulation, "2", &[("LD_LIBRARY_PATH", &path(&folder))]),
        "NCCL cannot be used, install it anew: it lacks ncclGetUniqueId",
    );
}

/// A library of the driver's name with some of its functions, as in a damaged installation.
fn half_a_driver(folder: &Path, functions: &str) -> PathBuf {
    library_of(folder, &format!("extern \"C\" {{ {functions} }}"), "libcuda.so.1");
    folder.to_path_buf()
}

fn library_of(folder: &Path, source: &str, library: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("library.cpp"), source).unwrap();
    let mut command = Command::new("g++");
    command.args(["-shared", "-fPIC", "library.cpp", "-o", library]).current_dir(folder);
    assert!(command.status().unwrap().success());
}

#[test]
fn a_driver_that_lacks_functions_is_told_so_and_nothing_panics() {
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let version = "int cuInit(unsigned) { return 0; } \
                   int cuDriverGetVersion(int* v) { *v = 13000; return 0; }";
    for (name, functions, lacks) in [
        ("no-version", "int cuInit(unsigned) { return 0; }", "Missing symbol cuDriverGetVersion"),
        ("no-contexts", version, "it lacks cuCtxSetCurrent"),
    ] {
        let folder = half_a_driver(&emulation.folder.join(name), functions);
        let output = run(&emulation, &["check"], &[("LD_LIBRARY_PATH", folder.to_str().unwrap())]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let begin = "error: the NVIDIA driver cannot be used, install it anew: ";
        assert!(error.starts_with(&format!("{begin}{lacks}")), "{error}");
        assert_eq!(output.status.code(), Some(1));
    }
}

/// Times of an emulation say nothing, but a program that is to run on a lent GPU should run.
#[test]
fn on_the_emulation_every_kernel_can_be_timed() {
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let output = run(&emulation, &["time", "small"], &[]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    for kernel in ["swiglu forward", "adamw", "fp8 decode", "routing", "grouped forward"] {
        assert!(out.lines().any(|line| line.starts_with(kernel)), "{kernel} in\n{out}");
    }
}

#[test]
fn the_script_for_a_machine_with_a_gpu_checks_and_does_not_time_an_emulation() {
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let folder = emulation.folder.join("carried");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_troupe-gpu"), folder.join("troupe-gpu")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/gpu.sh");
    let mut command = Command::new("bash");
    command.arg(script).arg(&folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("LD_LIBRARY_PATH", &emulation.folder);
    command.env("XDG_CACHE_HOME", &emulation.folder);
    let output = finished(command);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "| troupe doctor | skipped | there is no troupe in ",
        "| every kernel against the CPU | passed | ",
        "| every operator against the CPU | skipped | there is no on_gpu in ",
        "| plans and losses | skipped | there is no troupe in ",
        "| speed | skipped | this is the emulation of the driver; times would say nothing |",
    ] {
        assert!(out.contains(line), "{line} in\n{out}");
    }
    assert!(out.contains(" 0 wrong"), "{out}");
    assert!(folder.join("gpu-check.txt").exists() && !folder.join("gpu-time.txt").exists());
    let table = fs::read_to_string(folder.join("gpu-summary.md")).unwrap();
    assert!(out.ends_with(&table), "{table} ends\n{out}");
}
