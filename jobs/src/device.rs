//! What a job computes on: the processor, or a GPU of this machine.

use std::sync::{Mutex, PoisonError};

use graphs::{ModelGraph, Plan, memory::Loads};
use kernels::cuda::{
    Compiler, Device, DeviceError, Gpu,
    products::WORKSPACE_BYTES,
    program::{Format, Program, Source, Widths},
};
use ops::{DType, Op, Place};

use crate::{
    exit::Failure,
    job::{Device as Wanted, Job},
    machine, memory,
    view::progress::bytes,
};

/// Bytes of the GPU that are left to the driver and to the programs that it loads.
const LEFT: u64 = 512 << 20;

/// Tokens of logits that the loss holds at a time on a GPU.
const LOGITS: usize = 2048;

/// The GPU that a job's ranks live on, all of them on one; none if it runs on the processor.
///
/// `Auto` takes the first GPU that works, unless the job emulates a machine.
///
/// # Errors
///
/// A [`Failure`] with exit code 15 if the job wants a GPU, and what it lacks.
pub fn gpu(job: &Job) -> Result<Option<Device>, Failure> {
    let refused = |error: DeviceError| Failure::environment(format!("`device: Gpu`: {error}"));
    match job.device {
        Wanted::Cpu => Ok(None),
        Wanted::Auto if machine::emulated(job).is_some() => Ok(None),
        Wanted::Auto => Ok(opened().ok()),
        Wanted::Gpu if machine::emulated(job).is_some() => {
            let text = "`cluster: Local(..)` emulates devices on the processor; leave it out, or \
                        say `device: Cpu`";
            Err(Failure::usage(format!("`device: Gpu`: {text}")))
        }
        Wanted::Gpu => opened().map(Some).map_err(refused),
    }
}

/// The first GPU, opened once in a process.
fn opened() -> Result<Device, DeviceError> {
    static DEVICE: Mutex<Option<Device>> = Mutex::new(None);
    let mut device = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = &*device {
        return Ok(device.clone());
    }
    let opened = Device::open(0, Compiler::usual_folder().as_deref())?;
    Ok(device.insert(opened).clone())
}

/// Refuses a plan whose ranks together hold more than there is where the job runs.
///
/// # Errors
///
/// A [`Failure`] with exit code 13 and both figures, and those of [`gpu`].
pub fn fits(job: &Job, graph: &ModelGraph, plan: &Plan) -> Result<(), Failure> {
    match gpu(job)? {
        None => memory::fits(memory::of_training(graph, plan, job), "training this model"),
        Some(device) => {
            let (free, _) = device.memory().map_err(lost)?;
            let (planned, beside) = needed(job, graph, plan);
            let what = "training this model on the GPU";
            memory::refuse(planned + beside, Some(free.saturating_sub(LEFT)), what)
        }
    }
}

/// The place of all ranks of a plan: on a GPU, an arena as large as the plan's memory scan says.
///
/// # Errors
///
/// Those of [`gpu`], and what the device refuses.
pub fn place(job: &Job, graph: &ModelGraph, plan: &Plan) -> Result<Place, Failure> {
    let Some(device) = gpu(job)? else { return Ok(Place::Host) };
    device.load(&programs(graph, job.precision.dtype())).map_err(lost)?;
    let (free, _) = device.memory().map_err(lost)?;
    let (planned, beside) = needed(job, graph, plan);
    // Loads of experts are as even as the text, and an arena is never without holes.
    let most = (planned + planned / 4 + beside).min(free.saturating_sub(LEFT));
    let gpu = Gpu::new(&device, most).map_err(lost)?;
    Ok(Place::Gpu(gpu))
}

fn lost(error: DeviceError) -> Failure {
    Failure::environment(error.to_string())
}

/// What a run says of the place that it computes on.
pub fn told(place: &Place) -> String {
    match place {
        Place::Host => "the processor".into(),
        Place::Gpu(gpu) => {
            let found = gpu.device().found();
            let arena = bytes(gpu.arena().bytes() as usize);
            format!("GPU {}, {}, an arena of {arena}", found.ordinal, found.name)
        }
    }
}

/// Bytes that all ranks hold on their devices by the plan.
pub fn planned(job: &Job, graph: &ModelGraph, plan: &Plan) -> u64 {
    needed(job, graph, plan).0
}

/// Bytes that all ranks hold by the plan, and what calls take beside it.
fn needed(job: &Job, graph: &ModelGraph, plan: &Plan) -> (u64, u64) {
    let (dtype, optimizer) = (job.precision.dtype(), &job.learner().1.optimizer);
    let memory = graphs::memory::scan(graph, plan, dtype, optimizer, &Loads::Balanced);
    let stages = (0..memory.actors.len()).map(|stage| memory.rank(stage)).sum::<u64>();
    let planned = stages * plan.mesh.data_ranks() as u64;
    (planned, scratch(graph, plan) + WORKSPACE_BYTES as u64)
}

/// Bytes that operators and updates take for themselves during a call, at most.
fn scratch(graph: &ModelGraph, plan: &Plan) -> u64 {
    let tokens = plan.batch.microbatch * plan.batch.context;
    let of_operator = graph.nodes().map(|node| match &node.op {
        // Logits, and gradients of the logits of a chunk and of the input.
        Op::CrossEntropy(op) => {
            let columns = op.chunk.min(op.vocab);
            LOGITS.min(tokens) * columns + tokens * (columns + op.width)
        }
        Op::MlaAttention(op) => tokens * op.heads * (op.rope + 2),
        Op::Router(op) => tokens * (op.width + 2 * op.experts),
        _ => 0,
    });
    // Newton-Schulz: the matrix joined, lying flat and as the results of two steps; two squares.
    let of_update = graph.parameters().iter().map(|parameter| 6 * parameter.elements());
    let most = of_operator.chain(of_update).max().unwrap_or(0);
    2 * (most * DType::F32.size()) as u64
}

/// The programs that a job needs, so that none is compiled within a step.
fn programs(graph: &ModelGraph, dtype: DType) -> Vec<Program> {
    let widths = graph.nodes().filter_map(|node| match &node.op {
        Op::MlaAttention(op) => Some(Widths { nope: op.nope, rope: op.rope, value: op.value }),
        _ => None,
    });
    let mut sources: Vec<Source> = widths.flat_map(Source::all).collect();
    if sources.is_empty() {
        let is_plain = |source: &Source| {
            !matches!(source, Source::AttentionForward(_) | Source::AttentionBackward(_))
        };
        let all = Source::all(Widths { nope: 0, rope: 0, value: 0 });
        sources = all.into_iter().filter(is_plain).collect();
    }
    sources.sort_unstable();
    sources.dedup();
    let formats: &[Format] =
        if dtype == DType::Bf16 { &[Format::F32, Format::Bf16] } else { &[Format::F32] };
    let of = |source: Source| formats.iter().map(move |&format| Program { source, format });
    sources.into_iter().flat_map(of).collect()
}
