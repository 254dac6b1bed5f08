//! `doctor`: what this machine has for training, what is missing, and what to do about it.

use std::{fmt::Write, sync::Barrier, thread, time::Instant};

use kernels::{
    cuda::{self, Arena, Compiler, Device, DeviceError, Found, Library, Pinned, Stream, Streams},
    gemm::isa::Isa,
    mpi, reduce,
};
use serde_json::json;

use crate::{memory, report::SCHEMA, view::progress::bytes};

/// Floats that a core goes through when its bandwidth is measured, more than caches hold.
const FLOATS: usize = 16 << 20;

/// Times that they are gone through; the quickest counts.
const ROUNDS: usize = 5;

/// Bytes that a GPU copies when its rates are measured.
const COPIED: usize = 64 << 20;

/// What is said of a build without MPI.
const NO_MPI: &str = "not in this build; `cargo build --release --features mpi` lets runs go over \
                      several processes";

/// What was found.
struct Findings {
    cores: usize,
    memory: Option<u64>,
    /// Kinds of instructions, the one in use first.
    instructions: Vec<String>,
    /// Bytes a second that one core moves, and that all move together.
    bandwidth: (f64, f64),
    gpus: Result<Vec<Found>, DeviceError>,
    /// What the first GPU copies, or why it cannot be used.
    copies: Result<Copies, DeviceError>,
    libraries: Vec<Library>,
    /// The MPI that this program was built with, if any.
    mpi: Option<String>,
}

/// Bytes a second that a GPU copies.
#[derive(Clone, Copy, Debug)]
struct Copies {
    /// Within its memory, read and written.
    within: f64,
    /// From pinned memory of the host.
    up: f64,
    /// To it.
    down: f64,
}

/// Says what there is. Nothing that is missing is an error: a CPU is enough.
pub fn doctor(as_json: bool) -> String {
    let findings = Findings::of_this_machine();
    if as_json { format!("{}\n", findings.json()) } else { findings.text() }
}

impl Findings {
    fn of_this_machine() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let best = Isa::best();
        let mut instructions = Isa::available();
        instructions.sort_by_key(|isa| *isa != best);
        Findings {
            cores,
            memory: memory::total(),
            instructions: instructions.iter().map(Isa::to_string).collect(),
            bandwidth: (moved_per_second(1), moved_per_second(cores)),
            gpus: cuda::probe(),
            copies: Copies::of_the_first_gpu(),
            libraries: cuda::libraries().to_vec(),
            mpi: mpi::library(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let line = |text: &mut String, name: &str, what: &str| {
            writeln!(text, "{name:<10} {what}").expect("a string takes all");
        };
        let memory = self.memory.map_or(String::new(), |all| format!(", {}", bytes(all as usize)));
        let cores = if self.cores == 1 { "core" } else { "cores" };
        line(&mut text, "CPU", &format!("{} {cores}{memory}", self.cores));
        let (one, all) = (self.bandwidth.0 / 1e9, self.bandwidth.1 / 1e9);
        let moved = format!("{one:.1} GB/s by one core, {all:.1} GB/s by all, read and written");
        line(&mut text, "bandwidth", &moved);
        line(&mut text, "products", &self.products());
        match &self.gpus {
            Ok(gpus) => gpus.iter().for_each(|gpu| line(&mut text, "GPU", &described(gpu))),
            Err(error) => line(&mut text, "GPU", &error.to_string()),
        }
        if let Ok(Copies { within, up, down }) = self.copies {
            let [within, up, down] = [within, up, down].map(|rate| rate / 1e9);
            let copied = format!("{within:.0} GB/s within GPU 0, {up:.1} to it, {down:.1} from it");
            line(&mut text, "copies", &copied);
        }
        for Library { name, purpose, version } in &self.libraries {
            let what = match version {
                Ok(version) => format!("{version}, {purpose}"),
                Err(error) => format!("{error}; it {purpose}"),
            };
            line(&mut text, name, &what);
        }
        let mpi = self.mpi.as_ref().map(|name| format!("{name}, joins processes of a run"));
        line(&mut text, "MPI", mpi.as_deref().unwrap_or(NO_MPI));
        line(&mut text, "jobs run", &self.place());
        text
    }

    /// Where `device: Auto` lets jobs run.
    fn place(&self) -> String {
        match (&self.gpus, &self.copies) {
            (Err(_), _) => "on the CPU".into(),
            (Ok(_), Err(error)) => format!("on the CPU, since GPU 0 cannot be used: {error}"),
            (Ok(_), Ok(_)) => "on GPU 0, unless they say `device: Cpu`".into(),
        }
    }

    fn products(&self) -> String {
        let (best, others) = self.instructions.split_first().expect("plain Rust is always there");
        let others = match others {
            [] => String::new(),
            others => format!("; TROUPE_ISA can be {}, too", others.join(", ")),
        };
        format!("with {best}{others}")
    }

    fn json(&self) -> serde_json::Value {
        let gpu = |gpu: &Found| {
            json!({
                "ordinal": gpu.ordinal, "name": gpu.name, "architecture": gpu.architecture(),
                "memory": gpu.memory, "multiprocessors": gpu.multiprocessors, "driver": gpu.driver,
            })
        };
        let library = |library: &Library| {
            let error = library.version.as_ref().err().map(DeviceError::to_string);
            json!({ "name": library.name, "version": library.version.as_ref().ok(), "error": error })
        };
        json!({
            "schema": SCHEMA,
            "cores": self.cores,
            "memory": self.memory,
            "instructions": self.instructions,
            "bytes_per_second": { "core": self.bandwidth.0, "cores": self.bandwidth.1 },
            "gpus": self.gpus.iter().flatten().map(gpu).collect::<Vec<_>>(),
            "gpu_bytes_per_second": self.copies.as_ref().ok().map(|copies| {
                json!({ "within": copies.within, "to": copies.up, "from": copies.down })
            }),
            "gpu_error": self.gpus.as_ref().err().map(DeviceError::to_string),
            "mpi": self.mpi,
            "libraries": self.libraries.iter().map(library).collect::<Vec<_>>(),
        })
    }
}

impl Copies {
    fn of_the_first_gpu() -> Result<Self, DeviceError> {
        let device = Device::open(0, Compiler::usual_folder().as_deref())?;
        let (streams, bytes) = (Streams::new(&device)?, COPIED);
        let arena = Arena::new(&device, 2 * bytes as u64)?;
        let (mut a, mut b) = (arena.buffer::<u8>(bytes)?, arena.buffer::<u8>(bytes)?);
        let mut host = Pinned::<u8>::new(&device, bytes)?;
        let stream = &streams.compute;
        stream.fill(a.view_mut(), 1)?;
        let within = best(stream, || stream.copy(a.view(), b.view_mut()))?;
        let up = best(stream, || stream.fetch(&host, a.view_mut()))?;
        let down = best(stream, || stream.offload(b.view(), &mut host))?;
        let rate = |us: f32| bytes as f64 / (f64::from(us) * 1e-6);
        Ok(Copies { within: 2.0 * rate(within), up: rate(up), down: rate(down) })
    }
}

/// Microseconds of the quickest of some copies.
fn best(
    stream: &Stream,
    mut copy: impl FnMut() -> Result<(), DeviceError>,
) -> Result<f32, DeviceError> {
    let mut best = f32::INFINITY;
    for _ in 0..ROUNDS {
        let begin = stream.event()?;
        copy()?;
        let end = stream.event()?;
        end.wait()?;
        best = best.min(begin.us_to(&end)?);
    }
    Ok(best)
}

fn described(gpu: &Found) -> String {
    let Found { ordinal, name, multiprocessors, .. } = gpu;
    let (memory, architecture) = (bytes(gpu.memory as usize), gpu.architecture());
    let driver = format!("driver for CUDA {}.{}", gpu.driver / 1000, gpu.driver % 1000 / 10);
    format!(
        "{ordinal}: {name}, {architecture}, {multiprocessors} multiprocessors, {memory}, {driver}"
    )
}

/// Bytes a second that so many cores read and write together in sums of two large vectors.
fn moved_per_second(cores: usize) -> f64 {
    let barrier = Barrier::new(cores);
    let work = || {
        let (mut y, x) = (vec![1.0_f32; FLOATS / cores], vec![2.0_f32; FLOATS / cores]);
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            barrier.wait();
            let start = Instant::now();
            reduce::add(&mut y, &x);
            barrier.wait();
            best = best.min(start.elapsed().as_secs_f64());
        }
        std::hint::black_box(y);
        best
    };
    let slowest = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).fold(0.0, f64::max)
    });
    // Two are read and one is written.
    (3 * size_of::<f32>() * (FLOATS / cores) * cores) as f64 / slowest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(
        gpus: Result<Vec<Found>, DeviceError>,
        version: Result<String, DeviceError>,
    ) -> Findings {
        let nvrtc =
            Library { name: "NVRTC", purpose: "compiles our kernels for the device", version };
        Findings {
            cores: 2,
            memory: Some(24 << 30),
            instructions: ["dot", "avx512", "portable"].map(String::from).to_vec(),
            bandwidth: (11.25e9, 18e9),
            copies: gpus.clone().map(|_| Copies { within: 2.8e12, up: 55e9, down: 54.5e9 }),
            gpus,
            libraries: vec![nvrtc],
            mpi: None,
        }
    }

    #[test]
    fn without_a_gpu_it_says_what_to_do() {
        let missing = DeviceError::NoLibrary { library: "NVRTC", package: "nvidia-cuda-nvrtc" };
        let expected = "\
CPU        2 cores, 24.0 GiB
bandwidth  11.2 GB/s by one core, 18.0 GB/s by all, read and written
products   with dot; TROUPE_ISA can be avx512, portable, too
GPU        no NVIDIA driver: libcuda.so.1 was not found; install the driver, or run on the CPU
NVRTC      missing
MPI        not there
jobs run   on the CPU
";
        let said = format!("{missing}; it compiles our kernels for the device");
        let expected = expected.replace("missing", &said).replace("not there", NO_MPI);
        let mut findings = findings(Err(DeviceError::NoDriver), Err(missing));
        assert_eq!(findings.text(), expected);
        findings.mpi = Some("Open MPI v4.1.4".into());
        let line = "MPI        Open MPI v4.1.4, joins processes of a run\n";
        assert!(findings.text().contains(line), "{}", findings.text());
    }

    #[test]
    fn a_gpu_is_told_with_what_counts() {
        let gpu = Found {
            ordinal: 0,
            name: "NVIDIA H100 80GB HBM3".into(),
            capability: (9, 0),
            memory: 80 << 30,
            multiprocessors: 132,
            shared_memory: 227 * 1024,
            driver: 13_000,
        };
        let findings = findings(Ok(vec![gpu]), Ok("13.0".into()));
        let text = findings.text();
        let line = "GPU        0: NVIDIA H100 80GB HBM3, sm_90a, 132 multiprocessors, 80.0 GiB, \
                    driver for CUDA 13.0\n\
                    copies     2800 GB/s within GPU 0, 55.0 to it, 54.5 from it\n\
                    NVRTC      13.0, compiles our kernels for the device\n";
        assert!(text.contains(line), "{text}");
        assert!(text.ends_with("jobs run   on GPU 0, unless they say `device: Cpu`\n"), "{text}");
        assert_eq!(findings.json()["gpus"][0]["architecture"], "sm_90a");
    }

    #[test]
    fn bytes_are_moved_at_a_rate_that_memory_has() {
        let rate = moved_per_second(1);
        assert!((1e8..1e13).contains(&rate), "{rate:e}");
    }
}
