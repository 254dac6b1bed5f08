//! Checks every kernel of this machine's GPU against its CPU twin, and times it against its floor.
//!
//! It needs the driver, NVRTC and cuBLASLt, and no Rust: build it elsewhere and carry it over, or
//! let `tests/gpu.sh` do so. On the emulation of the driver (`kernels/tests/shim`) `check` runs as
//! well; `time` would say nothing there.

mod attention;
mod bed;
mod elementwise;
mod loss;
mod memory;
mod products;
mod routing;
mod rows;
mod time;

use std::process::ExitCode;

use kernels::cuda::{Compiler, Device, DeviceError};

use self::bed::Bed;

const USAGE: &str = "troupe-gpu check [SEED] | time";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["check"] => check(std::process::id().into()),
        ["check", seed] => match seed.parse() {
            Ok(seed) => check(seed),
            Err(_) => return usage(),
        },
        ["time"] => opened().and_then(|device| time::all(&device)).map(|()| true),
        _ => return usage(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn opened() -> Result<Device, DeviceError> {
    let folder = std::env::var_os("TROUPE_KERNELS").map(Into::into);
    let device = Device::open(0, folder.or_else(Compiler::usual_folder).as_deref())?;
    let found = device.found();
    println!("{}, {}, {} MiB", found.name, found.architecture(), found.memory >> 20);
    Ok(device)
}

/// Runs all cases twice and compares the hashes of all outputs; true if nothing is wrong.
fn check(seed: u64) -> Result<bool, DeviceError> {
    let device = opened()?;
    println!("seed {seed}");
    let [first, second] = [once(&device, seed)?, once(&device, seed)?];
    println!("{} comparisons, outputs {}", first.0, first.1);
    if first.1 != second.1 {
        println!("WRONG: another run gave outputs {}", second.1);
    }
    Ok(first.2 == 0 && first.1 == second.1)
}

/// Comparisons, the hash of all outputs, and how many were wrong.
fn once(device: &Device, seed: u64) -> Result<(usize, String, usize), DeviceError> {
    let mut bed = Bed::new(device, seed)?;
    memory::all(&mut bed)?;
    elementwise::all(&mut bed)?;
    rows::all(&mut bed)?;
    routing::all(&mut bed)?;
    loss::all(&mut bed)?;
    products::all(&mut bed)?;
    attention::all(&mut bed)?;
    Ok(bed.finish())
}
