//! `bench`: tokens per second of training, with the data in memory, and of writing.

pub mod writing;

mod parts;
mod products;
mod storage;

use std::num::NonZeroUsize;

use graphs::{ModelGraph, Plan, overlap::Overlap, plan::Batch};
use runtime::{Cluster, StepReport};
use serde_json::json;

use crate::{
    commands::verify::Recorded,
    device,
    exit::Failure,
    job::Job,
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

/// Trains on random tokens and prints speed figures, medians over the steps.
///
/// # Errors
///
/// A plan that does not fit, a failing actor.
pub fn bench(phase: &Phase, size: Size, as_json: bool) -> Result<u8, Failure> {
    let steps = size.steps.get();
    let tokens = size.sequences * size.context;
    let (job, reports) = (&phase.job, reports(phase, size)?);
    let seconds = reports.median(|report| report.step_seconds);
    let share = reports.median(|report| report.matmul_share);
    let rate = tokens as f64 / seconds;
    let memory = reports.median(|report| report.memory_bytes as f64) as usize;
    if as_json {
        let answer = json!({
            "schema": 1,
            "job": job.name,
            "tokens_per_second": rate,
            "step_seconds": seconds,
            "matmul_share": share,
            "bubble": reports.median(|report| report.bubble),
            "memory_bytes": memory,
            "copy_wait_seconds": reports.median(|report| report.copy_wait_seconds),
            "overlap": reports.overlap(),
            "actors": reports.0.last().map(|report| &report.memory.actors),
            "steps": steps,
        });
        println!("{answer}");
    } else {
        println!("{}: {} tokens/s", job.name, grouped(rate as u64));
        println!(
            "{seconds:.3} s for a step of {} tokens, median of {steps}",
            grouped(tokens as u64)
        );
        println!("{:.0} % of the busy time in matrix products", 100.0 * share);
        println!("{} held at most", bytes(memory));
        reports.overlap().iter().flat_map(words::overlap).for_each(|line| println!("{line}"));
    }
    Ok(0)
}

/// What was measured, step by step.
struct Reports(Vec<StepReport>);

impl Reports {
    fn median(&self, of: fn(&StepReport) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// What travelled in all steps together, if anything did.
    fn overlap(&self) -> Option<Overlap> {
        let overlaps: Option<Vec<Overlap>> = self.0.iter().map(|it| it.overlap.clone()).collect();
        overlaps.map(Overlap::sum)
    }
}

/// Trains on random tokens, two steps to warm up and those that count.
fn reports(phase: &Phase, size: Size) -> Result<Reports, Failure> {
    let job = &phase.job;
    let network = prepare::network(job)?;
    let plan = plan(job, &network.graph, size)?;
    device::fits(job, &network.graph, &plan)?;
    let vocab = prepare::vocabulary(&network.graph);
    let tokens = plan.batch.tokens();
    let feed = Recorded {
        steps: (0..4).map(|n| random_step(job.seed, n, tokens, vocab)).collect(),
        next: 0,
    };
    let mut cluster = Cluster::start(prepare::setup(phase, network, plan, None)?, Box::new(feed))?;
    for _ in 0..2 {
        cluster.step()?;
    }
    let reports = (0..size.steps.get()).map(|_| cluster.step()).collect::<Result<_, _>>()?;
    Ok(Reports(reports))
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
