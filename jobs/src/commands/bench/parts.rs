//! `bench --parts`: what each part of a step takes, against what it must take.
//!
//! A part's floor is the greater of its floating-point operations over the rate of products and
//! its bytes over the rate at which this machine moves them, both measured just before. Activations
//! are taken to move at the rate of a near cache, updates at that of memory.

use std::{collections::BTreeMap, time::Instant};

use graphs::{
    ModelGraph, Plan,
    price::{Profile, Sample},
};
use half::bf16;
use ops::{DType, Op, Rule, optim::Optimizer};
use serde_json::json;

use super::{
    Size,
    products::{Factor, rate},
};
use crate::{
    exit::Failure,
    job::Job,
    measure::{Subject, measure},
    phase::Phase,
    prepare,
    report::SCHEMA,
};

/// Passes over the model, of which the best counts.
const REPEATS: usize = 4;

/// One line of the table, for all cores together, of a whole step.
#[derive(Clone, Debug, Default)]
struct Part {
    flops: f64,
    bytes: f64,
    floor: f64,
    measured: f64,
}

impl Part {
    fn add(&mut self, other: &Part) {
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.floor += other.floor;
        self.measured += other.measured;
    }
}

/// Rates of one core.
struct Rates {
    flops: f64,
    near: f64,
    far: f64,
}

/// Prints the parts of a step, their sum, and the step as it runs under the job's plan.
///
/// # Errors
///
/// A plan that does not fit, a failing actor.
pub fn parts(phase: &Phase, size: Size, as_json: bool) -> Result<u8, Failure> {
    let job = &phase.job;
    let network = prepare::network(job)?;
    let plan = super::plan(job, &network.graph, size)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let dtype = job.precision.dtype();
    let (_, train) = job.learner();
    let rates = Rates::measured(dtype);
    let subject = Subject {
        graph: &network.graph,
        plan: &plan,
        optimizer: &train.optimizer,
        dtype,
        seed: job.seed,
        repeats: REPEATS,
    };
    let profile = measure(&subject, cores);
    let mut table = operators(&network.graph, &plan, &profile, &rates, dtype);
    table.extend(updates(&network.graph, &train.optimizer, &profile, &rates));
    for part in table.values_mut() {
        part.floor /= cores as f64;
        part.measured /= cores as f64;
    }
    let step = super::measured(phase, size)?.seconds();
    print(job, &table, step, as_json);
    Ok(0)
}

/// Every kind of operator, forward and backward, over all units of a step.
fn operators(
    graph: &ModelGraph,
    plan: &Plan,
    profile: &Profile,
    rates: &Rates,
    dtype: DType,
) -> BTreeMap<String, Part> {
    let mut table: BTreeMap<String, Part> = BTreeMap::new();
    let units = (plan.batch.sequences / plan.batch.microbatch) as f64;
    let parts: BTreeMap<usize, &Op> = plan
        .chunks
        .iter()
        .flat_map(|chunk| chunk.visits.iter().flat_map(|visit| &visit.nodes))
        .map(|(node, op)| (*node, op))
        .collect();
    for (id, node) in graph.nodes().enumerate() {
        let (op, groups) = match parts.get(&id) {
            Some(op) => (*op, plan.mesh.ep as f64),
            None => (&node.op, 1.0),
        };
        let Some(sample) = profile.samples.iter().find(|sample| sample.op == *op) else { continue };
        let part = part(sample, rates, dtype, units * groups);
        table.entry(op.name().to_string()).or_default().add(&part);
    }
    table
}

/// `F`, `I` and `W` of one operator, so many times.
fn part(sample: &Sample, rates: &Rates, dtype: DType, times: f64) -> Part {
    let op = sample.op.operator();
    let cost = op.cost(sample.amount, sample.sequence);
    let weights: usize = op.weights().iter().map(|it| it.shape.iter().product::<usize>()).sum();
    let flops = cost.forward_flops + cost.input_flops + cost.weight_flops;
    // Forward, input and weight gradients each go once over the activations and the weights, and
    // the sum of the weight gradients is read and written.
    let passes = 2.0 + f64::from(weights > 0);
    let activations = passes * cost.moved_elements * dtype.size() as f64;
    let bytes = activations + weights as f64 * (2 * dtype.size() + 8) as f64;
    Part {
        flops: times * flops,
        bytes: times * bytes,
        floor: times * f64::max(flops / rates.flops, bytes / rates.near),
        measured: times * (sample.forward + sample.input + sample.weight),
    }
}

/// Muon and AdamW, once for every parameter.
fn updates(
    graph: &ModelGraph,
    optimizer: &Optimizer,
    profile: &Profile,
    rates: &Rates,
) -> BTreeMap<String, Part> {
    let mut table: BTreeMap<String, Part> = BTreeMap::new();
    for parameter in graph.parameters().iter().filter(|it| it.spec.rule != Rule::Balance) {
        let shape = &parameter.spec.shape;
        let elements = parameter.elements() as f64;
        let is_muon = parameter.spec.rule == Rule::Muon
            && shape.len() == 2
            && matches!(optimizer, Optimizer::MuonClip(_));
        let part = if is_muon {
            let (short, long) = (shape[0].min(shape[1]) as f64, shape[0].max(shape[1]) as f64);
            // Half of `X X^T` and `A A` is known by symmetry.
            let flops = 5.0 * (3.0 * short * short * long + short * short * short);
            let measured = graphs::price::muon_flops(shape[0], shape[1]) * profile.update.muon_flop;
            let bytes = 20.0 * elements;
            Part { flops, bytes, floor: f64::max(flops / rates.flops, bytes / rates.far), measured }
        } else {
            let bytes = 28.0 * elements;
            let measured = elements * profile.update.adamw_element;
            Part { flops: 0.0, bytes, floor: bytes / rates.far, measured }
        };
        let name = if is_muon { "update: Muon" } else { "update: AdamW" };
        table.entry(name.into()).or_default().add(&part);
    }
    table
}

impl Rates {
    fn measured(dtype: DType) -> Self {
        let shape = [512, 512, 512];
        let gigaflops = match dtype {
            DType::Bf16 => rate::<bf16>(shape, 1, Factor::Packed),
            _ => rate::<f32>(shape, 1, Factor::Packed),
        };
        Rates { flops: 1e9 * gigaflops, near: moving(1 << 17), far: moving(1 << 25) }
    }
}

/// Bytes in a second that one core reads and writes while it adds two arrays of so many floats.
fn moving(len: usize) -> f64 {
    let (mut sum, part) = (vec![0.0_f32; len], vec![1.0_f32; len]);
    let repeats = (1 << 26) / len;
    let mut once = || {
        let begin = Instant::now();
        (0..repeats).for_each(|_| kernels::reduce::add(std::hint::black_box(&mut sum), &part));
        12.0 * (repeats * len) as f64 / begin.elapsed().as_secs_f64()
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}

fn print(job: &Job, table: &BTreeMap<String, Part>, step: f64, as_json: bool) {
    let mut all = Part::default();
    table.values().for_each(|part| all.add(part));
    if as_json {
        let row = |(name, part): (&String, &Part)| {
            json!({
                "part": name, "flops": part.flops, "bytes": part.bytes,
                "floor_seconds": part.floor, "seconds": part.measured,
            })
        };
        let rows: Vec<_> = table.iter().map(row).collect();
        let answer = json!({
            "schema": SCHEMA, "job": job.name, "parts": rows, "floor_seconds": all.floor,
            "sum_seconds": all.measured, "step_seconds": step,
        });
        return println!("{answer}");
    }
    println!("part              GFLOP       GB     floor ms  measured ms   ratio");
    let line = |name: &str, part: &Part, measured: f64| {
        let (flops, bytes) = (part.flops / 1e9, part.bytes / 1e9);
        let (floor, ratio) = (1e3 * part.floor, measured / part.floor);
        let measured = 1e3 * measured;
        println!("{name:15} {flops:7.2} {bytes:8.3} {floor:12.2} {measured:12.2} {ratio:7.2}");
    };
    table.iter().for_each(|(name, part)| line(name, part, part.measured));
    line("all parts", &all, all.measured);
    line("the step", &all, step);
}
