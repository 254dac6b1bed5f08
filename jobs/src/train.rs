//! The loop around a cluster: steps, metrics, checkpoints, a graceful end.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use graphs::Plan;
use runtime::{
    Cluster, RunError, StepReport,
    checkpoint::{CheckpointError, State},
    metrics::Metrics,
    saver::Saver,
};

use crate::{recorded, view::progress::Progress};

/// When training is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// After so many steps.
    Steps(u64),
    /// After the step that reaches so many tokens.
    Tokens(u64),
}

/// How often something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Every {
    /// Every so many steps.
    Steps(u64),
    /// At the first step after so much time.
    Time(Duration),
}

/// Where and when checkpoints are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoints {
    /// Folder of the step folders.
    pub dir: PathBuf,
    /// How often, beside the one at the end; only the one at the end if left out.
    pub every: Option<Every>,
    /// Newest ones that stay.
    pub keep: usize,
}

/// What a run does beside training.
#[derive(Clone, Debug)]
pub struct Orders {
    /// When it is done.
    pub stop: Stop,
    /// Phase of the job that is trained, if the job has phases.
    pub phase: Option<String>,
    /// Checkpoints, if the job wants any.
    pub checkpoints: Option<Checkpoints>,
    /// Files for metrics, one JSON object a step.
    pub metrics: Vec<PathBuf>,
    /// The resolved job, written into every checkpoint.
    pub job: String,
    /// No progress on standard error.
    pub quiet: bool,
    /// What is recorded, if anything.
    pub trace: Option<Trace>,
}

/// Steps to record, and where.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Folder of the recorded steps.
    pub dir: PathBuf,
    /// Steps to record, counted from the start of training.
    pub steps: Vec<u64>,
    /// Name of the job.
    pub name: String,
    /// The plan that runs.
    pub plan: Plan,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Loss of each step of this process.
    pub losses: Vec<(u64, f64)>,
    /// Whether the user stopped it before the job's end.
    pub interrupted: bool,
    /// All weights and states at the end.
    pub state: State,
    /// The checkpoint written last.
    pub saved: Option<PathBuf>,
}

/// Trains until the job's end or until `interrupted` is set, and saves at the end in both cases.
///
/// # Errors
///
/// The first failure of an actor, of a checkpoint or of a metrics file. Checkpoints written
/// before it stay.
pub fn train(
    cluster: &mut Cluster,
    orders: &Orders,
    interrupted: &AtomicBool,
) -> Result<Outcome, RunError> {
    let begin = cluster.steps();
    let metrics: Vec<Metrics> =
        orders.metrics.iter().map(|path| Metrics::open(path, begin)).collect::<Result<_, _>>()?;
    let saver = |c: &Checkpoints| Saver::start(c.dir.clone(), c.keep);
    let mut saver = orders.checkpoints.as_ref().map(saver);
    let progress = Progress::new(last_step(orders.stop), orders.quiet);
    let mut losses = Vec::new();
    let mut saved_at = Instant::now();
    while !is_done(orders.stop, cluster) && !interrupted.load(Ordering::Relaxed) {
        let next = cluster.steps() + 1;
        if orders.trace.as_ref().is_some_and(|trace| trace.steps.contains(&next)) {
            cluster.record();
        }
        let report = StepReport { phase: orders.phase.clone(), ..cluster.step()? };
        write_recording(cluster, orders);
        losses.push((report.step, report.loss));
        metrics.iter().for_each(|metrics| metrics.write(&report));
        progress.show(&report);
        let is_last = is_done(orders.stop, cluster);
        if let Some(saver) = &mut saver
            && !is_last
            && is_due(orders, cluster.steps(), saved_at)
        {
            saver.save(state(cluster, orders)?)?;
            saved_at = Instant::now();
        }
    }
    progress.leave();
    let state = state(cluster, orders)?;
    let saved = saver.map(|mut saver| save_last(&mut saver, state.clone())).transpose()?;
    Ok(Outcome {
        losses,
        interrupted: !is_done(orders.stop, cluster),
        state,
        saved: saved.flatten(),
    })
}

/// Writes the step that was recorded, if one was; a failed write loses no training.
fn write_recording(cluster: &mut Cluster, orders: &Orders) {
    let (Some(trace), Some(recording)) = (&orders.trace, cluster.recording()) else { return };
    if let Err(error) = recorded::write(&trace.dir, &trace.name, &trace.plan, &recording) {
        eprintln!("warning: step {} is not recorded: {error}", recording.step);
    }
}

fn save_last(saver: &mut Saver, state: State) -> Result<Option<PathBuf>, CheckpointError> {
    saver.save(state)?;
    saver.wait()
}

fn state(cluster: &mut Cluster, orders: &Orders) -> Result<State, RunError> {
    let snapshot = cluster.snapshot()?;
    Ok(State {
        step: cluster.steps(),
        tokens: cluster.tokens(),
        phase: orders.phase.clone(),
        feed: snapshot.feed,
        job: orders.job.clone(),
        tensors: snapshot.tensors,
    })
}

fn is_done(stop: Stop, cluster: &Cluster) -> bool {
    match stop {
        Stop::Steps(steps) => steps <= cluster.steps(),
        Stop::Tokens(tokens) => tokens <= cluster.tokens(),
    }
}

fn last_step(stop: Stop) -> Option<u64> {
    match stop {
        Stop::Steps(steps) => Some(steps),
        Stop::Tokens(_) => None,
    }
}

fn is_due(orders: &Orders, step: u64, saved_at: Instant) -> bool {
    let every = orders.checkpoints.as_ref().and_then(|checkpoints| checkpoints.every);
    match every {
        None => false,
        Some(Every::Steps(steps)) => step.is_multiple_of(steps),
        Some(Every::Time(time)) => time <= saved_at.elapsed(),
    }
}
