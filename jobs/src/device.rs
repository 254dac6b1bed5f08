//! What a job computes on: the processor, or the GPUs of this machine.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use graphs::{ModelGraph, Plan, address::Address, memory::Loads, plan::Side};
use kernels::cuda::{
    Compiler, Device, DeviceError, Gpu, libraries, newton_schulz, probe,
    products::WORKSPACE_BYTES,
    program::{Format, Program, Source, Widths},
};
use ops::{DType, Op, Place, optim::Optimizer};

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

/// The GPUs that a job's ranks live on; none if it runs on the processor.
///
/// `Auto` takes all GPUs of the machine if they work, unless the job emulates a machine. Several
/// need NCCL; without it all ranks live on the first.
///
/// # Errors
///
/// A [`Failure`] with exit code 15 if the job wants a GPU, and what it lacks.
pub fn gpus(job: &Job) -> Result<Vec<Device>, Failure> {
    let refused = |error: DeviceError| Failure::environment(format!("`device: Gpu`: {error}"));
    match job.device {
        Wanted::Cpu => Ok(Vec::new()),
        Wanted::Auto if machine::emulated(job).is_some() => Ok(Vec::new()),
        Wanted::Auto => Ok(opened().unwrap_or_default()),
        Wanted::Gpu if machine::emulated(job).is_some() => {
            let text = "`cluster: Local(..)` emulates devices on the processor; leave it out, or \
                        say `device: Cpu`";
            Err(Failure::usage(format!("`device: Gpu`: {text}")))
        }
        Wanted::Gpu => opened().map_err(refused),
    }
}

/// The job as several processes run it: on their processors.
///
/// # Errors
///
/// A [`Failure`] with exit code 2 if the job wants a GPU.
pub fn on_processors(job: &Job) -> Result<Job, Failure> {
    match job.device {
        Wanted::Gpu => {
            let text = "over several processes ranks compute on the processor; start one process, \
                        or say `device: Cpu`";
            Err(Failure::usage(format!("`device: Gpu`: {text}")))
        }
        Wanted::Auto | Wanted::Cpu => Ok(Job { device: Wanted::Cpu, ..job.clone() }),
    }
}

/// The GPUs that work together, opened once in a process; at least one.
fn opened() -> Result<Vec<Device>, DeviceError> {
    static DEVICES: Mutex<Vec<Device>> = Mutex::new(Vec::new());
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if devices.is_empty() {
        let found = probe()?;
        let alike = found.iter().take_while(|it| it.capability == found[0].capability);
        let count = if has_nccl() { alike.count() } else { 1 };
        let folder = Compiler::usual_folder();
        let open = |ordinal| Device::open(ordinal, folder.as_deref());
        *devices = (0..count).map(open).collect::<Result<_, _>>()?;
    }
    Ok(devices.clone())
}

fn has_nccl() -> bool {
    libraries().iter().any(|library| library.name == "NCCL" && library.version.is_ok())
}

/// The GPU of a rank: neighbouring ranks share one if there are more ranks than GPUs.
fn gpu_of(rank: usize, ranks: usize, gpus: usize) -> usize {
    rank * gpus.min(ranks) / ranks
}

/// Refuses a plan whose ranks together hold more than there is where the job runs.
///
/// # Errors
///
/// A [`Failure`] with exit code 13 and both figures, and those of [`gpus`].
pub fn fits(job: &Job, graph: &ModelGraph, plan: &Plan) -> Result<(), Failure> {
    let devices = gpus(job)?;
    if devices.is_empty() {
        return memory::fits(memory::of_training(graph, plan, job), "training this model");
    }
    for (device, (planned, beside)) in devices.iter().zip(needed(job, graph, plan, devices.len())) {
        let (free, _) = device.memory().map_err(lost)?;
        let what = format!("training this model on GPU {}", device.found().ordinal);
        memory::refuse(planned + beside, Some(free.saturating_sub(LEFT)), &what)?;
    }
    Ok(())
}

/// The places of all ranks of a plan: on GPUs, arenas as large as the plan's memory scan says.
///
/// # Errors
///
/// Those of [`gpus`], and what a device refuses.
pub fn places(job: &Job, graph: &ModelGraph, plan: &Plan) -> Result<Vec<Place>, Failure> {
    let (devices, ranks) = (gpus(job)?, plan.mesh.ranks());
    if devices.is_empty() {
        return Ok(vec![Place::Host; ranks]);
    }
    let needed = needed(job, graph, plan, devices.len());
    let devices = &devices[..needed.len()];
    let mut bytes = Vec::new();
    for (device, (planned, beside)) in devices.iter().zip(needed) {
        device.load(&programs(graph, job.precision.dtype())).map_err(lost)?;
        let (free, _) = device.memory().map_err(lost)?;
        // Loads of experts are as even as the text, and an arena is never without holes.
        bytes.push((planned + planned / 4 + beside).min(free.saturating_sub(LEFT)));
    }
    let gpus = Gpu::all(devices, &bytes).map_err(lost)?;
    let place = |rank| Place::Gpu(gpus[gpu_of(rank, ranks, gpus.len())].clone());
    Ok((0..ranks).map(place).collect())
}

fn lost(error: DeviceError) -> Failure {
    Failure::environment(error.to_string())
}

/// The GPUs among the places of ranks, each once.
pub fn each(places: &[Place]) -> Vec<Gpu> {
    let mut gpus: Vec<Gpu> = Vec::new();
    for place in places {
        match place {
            Place::Gpu(gpu) if !gpus.iter().any(|it| it.is(gpu)) => gpus.push(gpu.clone()),
            _ => {}
        }
    }
    gpus
}

/// What a run says of the places that it computes on.
pub fn told(places: &[Place]) -> String {
    let gpus = each(places);
    let Some(first) = gpus.first() else { return "the processor".into() };
    let name = &first.device().found().name;
    let arenas: u64 = gpus.iter().map(|gpu| gpu.arena().bytes()).sum();
    let arenas = bytes(arenas as usize);
    match gpus.len() {
        1 => format!("GPU {}, {name}, an arena of {arenas}", first.device().found().ordinal),
        count => format!("{count} GPUs, {name}, arenas of {arenas} together"),
    }
}

/// Bytes that all ranks hold on their devices by the plan.
pub fn planned(job: &Job, graph: &ModelGraph, plan: &Plan) -> u64 {
    needed(job, graph, plan, 1)[0].0
}

/// For each GPU the bytes that its ranks hold by the plan, and what calls take beside it.
fn needed(job: &Job, graph: &ModelGraph, plan: &Plan, gpus: usize) -> Vec<(u64, u64)> {
    let (dtype, optimizer) = (job.precision.dtype(), &job.learner().1.optimizer);
    let memory = graphs::memory::scan(graph, plan, dtype, optimizer, &Loads::Balanced);
    let ranks = plan.mesh.ranks();
    let beside = scratch(graph, plan, optimizer) + WORKSPACE_BYTES as u64;
    let mut needed = vec![(0, beside); gpus.min(ranks)];
    for address in Address::all(&plan.mesh).into_iter().filter(|it| it.side == Side::Stage) {
        let gpu = gpu_of(address.index(&plan.mesh) / 2, ranks, gpus);
        needed[gpu].0 += memory.rank(address.stage);
    }
    needed
}

/// Bytes that operators and updates take for themselves during a call, at most.
fn scratch(graph: &ModelGraph, plan: &Plan, optimizer: &Optimizer) -> u64 {
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
    let most = of_operator.chain(of_updates(graph, optimizer)).max().unwrap_or(0);
    2 * (most * DType::F32.size()) as u64
}

/// Elements that a batch of parameters of each shape takes, as many as may be updated together.
fn of_updates(graph: &ModelGraph, optimizer: &Optimizer) -> impl Iterator<Item = usize> {
    let mut kinds: BTreeMap<(bool, &[usize]), usize> = BTreeMap::new();
    for spec in graph.parameters().iter().map(|parameter| &parameter.spec) {
        let is_matrix = optimizer.muon(spec.rule, &spec.shape).is_some();
        *kinds.entry((is_matrix, &spec.shape)).or_default() += 1;
    }
    kinds.into_iter().map(|((is_matrix, shape), count)| {
        let elements = shape.iter().product::<usize>();
        // Newton-Schulz: the matrices joined, lying flat and as the results of two steps; two
        // squares. AdamW: the new values, and sums of squares by rows.
        let buffers = if is_matrix { 6 } else { 2 };
        buffers * elements * count.min(newton_schulz::at_once(elements))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_dealt_out_evenly_and_neighbours_stay_together() {
        let gpus =
            |ranks, gpus| (0..ranks).map(|rank| gpu_of(rank, ranks, gpus)).collect::<Vec<_>>();
        assert_eq!(gpus(4, 1), [0, 0, 0, 0]);
        assert_eq!(gpus(4, 2), [0, 0, 1, 1]);
        assert_eq!(gpus(6, 4), [0, 0, 1, 2, 2, 3]);
        assert_eq!(gpus(2, 8), [0, 1]);
    }
}
