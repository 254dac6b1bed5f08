//! Checks every kernel of this machine's GPU against its CPU twin, and times it against its floor.
//!
//! It needs the driver, NVRTC and cuBLASLt, NCCL for messages between GPUs, which are left out
//! without it, and no Rust: build it elsewhere and carry it over, or let `tests/gpu.sh` do so. On
//! the emulation of the driver (`kernels/tests/shim`) `check` runs as well; `time` would say
//! nothing there.

mod attention;
mod bed;
mod elementwise;
mod grouped;
mod loss;
mod memory;
mod messages;
mod orthogonal;
mod pieces;
mod products;
mod routing;
mod rows;
mod time;

use std::{process::ExitCode, time::Duration};

use kernels::cuda::{Compiler, Device, DeviceError};

use self::bed::Bed;

const USAGE: &str = "troupe-gpu check [SEED [brief]] | products [SEED [brief]] | \
                     messages [SEED [MILLISECONDS]] | time [small]";

/// What is checked.
#[derive(Clone, Copy, PartialEq)]
enum Cases {
    All,
    /// What differs between devices: kernels that have a form for warpgroups.
    Products,
}

/// How long ranks may take to join each other, and a message to arrive.
const MESSAGE_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        [name @ ("check" | "products"), ref rest @ ..] => {
            let cases = if name == "check" { Cases::All } else { Cases::Products };
            let seed = rest.first().map_or(Ok(std::process::id().into()), |seed| seed.parse());
            match (seed, rest) {
                (Ok(seed), [] | [_]) => check(cases, seed, false),
                (Ok(seed), [_, "brief"]) => check(cases, seed, true),
                _ => return usage(),
            }
        }
        ["messages"] => messages(std::process::id().into(), MESSAGE_LIMIT),
        ["messages", seed, ref rest @ ..] => match (seed.parse(), rest) {
            (Ok(seed), []) => messages(seed, MESSAGE_LIMIT),
            (Ok(seed), [limit]) if let Ok(limit) = limit.parse() => {
                messages(seed, Duration::from_millis(limit))
            }
            _ => return usage(),
        },
        ["time"] => opened().and_then(|device| time::all(&device, time::K2)).map(|()| true),
        ["time", "small"] => {
            opened().and_then(|device| time::all(&device, time::SMALL)).map(|()| true)
        }
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
    let device = Device::open(0, Compiler::usual_folder().as_deref())?;
    let found = device.found();
    println!("{}, {}, {} MiB", found.name, found.architecture(), found.memory >> 20);
    Ok(device)
}

/// Runs cases twice, or a few once, and compares the hashes of all outputs; true if nothing is
/// wrong.
fn check(cases: Cases, seed: u64, is_brief: bool) -> Result<bool, DeviceError> {
    let device = opened()?;
    println!("seed {seed}");
    let runs = if is_brief { 1 } else { 2 };
    let run = |_| once(&device, cases, seed, is_brief);
    let all = (0..runs).map(run).collect::<Result<Vec<_>, _>>()?;
    let (comparisons, outputs, wrong) = &all[0];
    let is_steady = all.iter().all(|(_, other, _)| other == outputs);
    if !is_steady {
        println!("WRONG: runs gave different outputs, {all:?}");
    }
    println!("{comparisons} comparisons, {wrong} wrong, outputs {outputs}");
    Ok(*wrong == 0 && is_steady)
}

/// Comparisons, the hash of all outputs, and how many were wrong.
fn once(
    device: &Device,
    cases: Cases,
    seed: u64,
    is_brief: bool,
) -> Result<(usize, String, usize), DeviceError> {
    if cases == Cases::Products {
        let mut bed = Bed::without_kernels(device, seed, is_brief)?;
        grouped::all(&mut bed)?;
        attention::all(&mut bed)?;
        orthogonal::all(&mut bed)?;
        return Ok(bed.finish());
    }
    let mut bed = Bed::new(device, seed, is_brief)?;
    memory::all(&mut bed)?;
    elementwise::all(&mut bed)?;
    pieces::all(&mut bed)?;
    rows::all(&mut bed)?;
    routing::all(&mut bed)?;
    loss::all(&mut bed)?;
    products::all(&mut bed)?;
    grouped::all(&mut bed)?;
    orthogonal::all(&mut bed)?;
    attention::all(&mut bed)?;
    messages::all(&mut bed, MESSAGE_LIMIT)?;
    Ok(bed.finish())
}

/// Runs the cases of messages alone, with a limit for each.
fn messages(seed: u64, limit: Duration) -> Result<bool, DeviceError> {
    let device = opened()?;
    println!("seed {seed}");
    let mut bed = Bed::without_kernels(&device, seed, false)?;
    messages::all(&mut bed, limit)?;
    let (comparisons, outputs, wrong) = bed.finish();
    println!("{comparisons} comparisons, {wrong} wrong, outputs {outputs}");
    Ok(wrong == 0)
}
