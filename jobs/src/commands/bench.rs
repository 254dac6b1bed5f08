//! `bench`: tokens per second of training, with the data in memory, and of writing.

pub mod writing;

mod parts;
mod products;
mod storage;

use std::num::NonZeroUsize;

use graphs::{ModelGraph, Plan, overlap::Overlap, plan::Batch, price::flops_of_step};
use kernels::cuda::Gpu;
use ops::DType;
use runtime::{Cluster, StepReport};
use serde_json::json;

use crate::{
    commands::verify::Recorded,
    device,
    exit::Failure,
    job::Job,
    peak,
    phase::Phase,
    prepare,
    view::{
        progress::{bytes, grouped},
        words,
    },
};

pub use self::{parts::parts, products::products, storage::storage};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Sequences of a step; the same for every job unless asked, so that figures compare.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// Steps, after two that warm up.
    pub steps: NonZeroUsize,
}

impl Size {
    /// Tokens of a step.
    fn tokens(self) -> usize {
        self.sequences * self.context
    }
}

/// Trains on random tokens and prints speed figures, medians over the steps.
///
/// `peak` is the rate of products, in operations a second, that MFU is a share of; left out, that
/// of a GPU that is known, in BF16.
///
/// # Errors
///
/// A plan that does not fit, a failing actor.
pub fn bench(phase: &Phase, size: Size, peak: Option<f64>, as_json: bool) -> Result<u8, Failure> {
    let (job, measured) = (&phase.job, measured(phase, size)?);
    let peak = peak.or_else(|| measured.known_peak(job));
    if as_json {
        println!("{}", measured.json(job, size, peak));
    } else {
        print!("{}", measured.text(job, size, peak));
    }
    Ok(0)
}

/// What was measured, step by step.
struct Measured {
    reports: Vec<StepReport>,
    /// Operations of the model in a step.
    flops: f64,
    /// The GPUs that it was trained on; none if on the processor.
    gpus: Vec<Gpu>,
    /// Bytes that all ranks hold by the plan.
    planned: u64,
}

impl Measured {
    fn median(&self, of: fn(&StepReport) -> f64) -> f64 {
        let mut values: Vec<f64> = self.reports.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    fn seconds(&self) -> f64 {
        self.median(|report| report.step_seconds)
    }

    /// Part of the busy time that products take; nobody asks a GPU.
    fn share(&self) -> Option<f64> {
        self.gpus.is_empty().then(|| self.median(|report| report.matmul_share))
    }

    /// Bytes that were held, with what lay on the host.
    fn memory(&self) -> usize {
        self.median(|report| report.memory_bytes as f64) as usize
    }

    /// What travelled in all steps together, if anything did.
    fn overlap(&self) -> Option<Overlap> {
        let overlaps: Option<Vec<Overlap>> =
            self.reports.iter().map(|it| it.overlap.clone()).collect();
        overlaps.map(Overlap::sum)
    }

    /// What the GPUs could do together; nothing for the processor, in F32, or if nobody has told.
    fn known_peak(&self, job: &Job) -> Option<f64> {
        let name = &self.gpus.first()?.device().found().name;
        let is_known = job.precision.dtype() == DType::Bf16;
        peak::of(name).filter(|_| is_known).map(|peak| peak * self.gpus.len() as f64)
    }

    fn json(&self, job: &Job, size: Size, peak: Option<f64>) -> serde_json::Value {
        let gpu = |gpu: &Gpu| json!({ "name": gpu.device().found().name, "arena_bytes": gpu.arena().bytes() });
        json!({
            "schema": 1,
            "job": job.name,
            "tokens_per_second": size.tokens() as f64 / self.seconds(),
            "step_seconds": self.seconds(),
            "model_flops": self.flops,
            "peak_flops": peak,
            "mfu": peak.map(|peak| self.flops / self.seconds() / peak),
            "gpus": self.gpus.iter().map(gpu).collect::<Vec<_>>(),
            "matmul_share": self.share(),
            "bubble": self.median(|report| report.bubble),
            "memory_bytes": self.memory(),
            "planned_bytes": self.planned,
            "copy_wait_seconds": self.median(|report| report.copy_wait_seconds),
            "overlap": self.overlap(),
            "actors": self.reports.last().map(|report| &report.memory.actors),
            "steps": size.steps,
        })
    }

    fn text(&self, job: &Job, size: Size, peak: Option<f64>) -> String {
        let (seconds, tokens) = (self.seconds(), size.tokens());
        let mfu = peak.map_or(String::new(), |peak| {
            let mfu = 100.0 * self.flops / seconds / peak;
            format!(", MFU {mfu:.1} % of {:.0} TFLOP/s", peak / 1e12)
        });
        let mut lines = vec![
            format!("{}: {} tokens/s", job.name, grouped((tokens as f64 / seconds) as u64)),
            format!(
                "{seconds:.3} s for a step of {} tokens, median of {}",
                grouped(tokens as u64),
                size.steps
            ),
            format!(
                "{:.1} GFLOP of the model a step, {:.1} GFLOP/s{mfu}",
                self.flops / 1e9,
                self.flops / seconds / 1e9
            ),
        ];
        lines
            .extend(self.share().map(|share| {
                format!("{:.0} % of the busy time in matrix products", 100.0 * share)
            }));
        lines.push(format!("{} held at most", bytes(self.memory())));
        lines.extend(self.overlap().iter().flat_map(words::overlap));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Trains on random tokens, two steps to warm up and those that count.
fn measured(phase: &Phase, size: Size) -> Result<Measured, Failure> {
    let job = &phase.job;
    let network = prepare::network(job)?;
    let plan = plan(job, &network.graph, size)?;
    device::fits(job, &network.graph, &plan)?;
    let flops = flops_of_step(&network.graph, plan.batch);
    let planned = device::planned(job, &network.graph, &plan);
    let vocab = prepare::vocabulary(&network.graph);
    let tokens = plan.batch.tokens();
    let feed = Recorded {
        steps: (0..4).map(|n| random_step(job.seed, n, tokens, vocab)).collect(),
        next: 0,
    };
    let setup = prepare::setup(phase, network, plan, None)?;
    let gpus = device::each(&setup.places);
    let mut cluster = Cluster::start(setup, Box::new(feed))?;
    for _ in 0..2 {
        cluster.step()?;
    }
    let reports = (0..size.steps.get()).map(|_| cluster.step()).collect::<Result<_, _>>()?;
    Ok(Measured { reports, flops, gpus, planned })
}

/// The job's plan for a batch of the given size.
fn plan(job: &Job, graph: &ModelGraph, size: Size) -> Result<Plan, Failure> {
    let spec = job.plan();
    let Size { sequences, context, .. } = size;
    let batch = Batch { sequences, context, microbatch: spec.microbatch, lanes: None };
    let refused = |mistakes: Vec<graphs::PlanError>| {
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let what = format!("a step of {sequences} sequences does not fit the plan");
        Failure::usage(format!("{what}: {}", said.join("; ")))
    };
    graphs::lower(graph, spec, batch).map_err(refused)
}

/// Tokens that follow no rule, keyed by seed and step.
fn random_step(seed: u64, step: u64, tokens: usize, vocab: usize) -> (Vec<i32>, Vec<i32>) {
    let key = kernels::random::key(seed, "bench");
    let token = |index: u64| (kernels::random::bits(key, step << 32 | index) % vocab as u64) as i32;
    let inputs = (0..tokens as u64).map(token).collect();
    let targets = (1..=tokens as u64).map(token).collect();
    (inputs, targets)
}
