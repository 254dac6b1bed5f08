//! The phases of a run: made ready before the first step, chosen when a run goes on, told about.

use std::{fmt, path::PathBuf};

use graphs::{Decoder, ModelGraph, Plan};
use runtime::{
    Feed, RunError,
    checkpoint::State,
    processes::{Processes, Spread},
};
use serde_json::{Value, json};

use crate::{
    data::{Mix, Tokenizer},
    device,
    exit::Failure,
    folder,
    job::Job,
    memory,
    phase::Phase,
    prepare::{self, Network, PrepareError},
    train::Outcome,
};

/// A phase with its model and plan.
pub(super) struct Lowered {
    pub phase: Phase,
    pub network: Network,
    pub plan: Plan,
}

/// A phase that is ready to be trained.
pub(super) struct Ready {
    pub lowered: Lowered,
    pub text: Mix,
    /// Loss of a model that knows only how frequent the words of its text are.
    pub unigram: f64,
    /// Whether its sequences are longer or shorter than those of the phase before.
    is_cut_anew: bool,
}

impl AsRef<Phase> for Lowered {
    fn as_ref(&self) -> &Phase {
        &self.phase
    }
}

impl AsRef<Phase> for Ready {
    fn as_ref(&self) -> &Phase {
        &self.lowered.phase
    }
}

/// A phase that has been trained, or as much of it as was wanted.
pub(super) struct Trained {
    pub phase: Phase,
    pub graph: ModelGraph,
    pub decoder: Option<Decoder>,
    /// How it ended, with the losses of all phases of this process.
    pub outcome: Outcome,
    pub unigram: f64,
}

/// A phase as this process trained it: its name, and a step and its loss at both ends.
pub(super) struct Told {
    pub name: String,
    pub first: (u64, f64),
    pub last: (u64, f64),
}

/// Lowers all phases of a job, and asks whether what this process holds of them fits.
///
/// With `force`, a plan may hold more than its devices do; the run ends when it does.
pub(super) fn lowered(
    job: &Job,
    force: bool,
    processes: Option<&Processes>,
) -> Result<Vec<Lowered>, Failure> {
    let mut lowered = Vec::new();
    for (number, phase) in job.phases().into_iter().enumerate() {
        // Only the first phase can begin with weights that are read from a folder.
        let network = if number == 0 { prepare::network } else { prepare::shape };
        let network = network(&phase.job)?;
        let plan = prepare::plan(&phase.job, &network.graph, None, None)?;
        let fits = match processes {
            None => device::fits(&phase.job, &network.graph, &plan),
            Some(processes) => fits_processes(processes, &phase.job, &network.graph, &plan),
        };
        fits.map_err(|failure| failure.in_phase(phase.name.as_deref()))?;
        if !force {
            let fits = memory::fits_devices(&phase.job, &network.graph, &plan);
            fits.map_err(|failure| failure.in_phase(phase.name.as_deref()))?;
        }
        lowered.push(Lowered { phase, network, plan });
    }
    Ok(lowered)
}

/// Whether there is a rank for every process, and memory for those of this one.
fn fits_processes(
    processes: &Processes,
    job: &Job,
    graph: &ModelGraph,
    plan: &Plan,
) -> Result<(), Failure> {
    let (ranks, count) = (plan.mesh.ranks(), processes.count());
    let spread = Spread::new(ranks, count).ok_or_else(|| {
        let plural = if ranks == 1 { "rank" } else { "ranks" };
        Failure::usage(format!(
            "the plan has {ranks} {plural} for {count} processes; start no more than it has ranks"
        ))
    })?;
    let own = spread.ranks(processes.number());
    let what = format!("training ranks {own:?} of this model");
    memory::fits(memory::of_ranks(graph, plan, job, own), &what)
}

/// Makes all phases of a job ready, so that none fails after another has been trained.
pub(super) fn ready(
    lowered: Vec<Lowered>,
    data: Option<&PathBuf>,
) -> Result<(Vec<Ready>, Tokenizer), Failure> {
    let (graph, cache) = (&lowered[0].network.graph, folder::cache());
    let jobs = lowered.iter().map(|it| &it.phase.job);
    let (texts, tokenizer) = prepare::texts(jobs, graph, data, &cache)?;
    let vocab = prepare::vocabulary(graph);
    let mut ready: Vec<Ready> = Vec::new();
    for (lowered, mut text) in lowered.into_iter().zip(texts) {
        let unigram = text.unigram_nats(vocab).map_err(PrepareError::from)?;
        let context = lowered.plan.batch.context;
        let is_other = |it: &Ready| it.lowered.plan.batch.context != context;
        let is_cut_anew = ready.last().is_some_and(is_other);
        ready.push(Ready { lowered, text, unigram, is_cut_anew });
    }
    Ok((ready, tokenizer))
}

/// The phases of a run of so many steps that are left when some are done; at least its last one.
pub(super) fn left<P: AsRef<Phase>>(all: Vec<P>, done: u64, steps: u64) -> impl Iterator<Item = P> {
    let last = all.iter().rposition(|it| it.as_ref().begin < steps).unwrap_or(0);
    let first = all.iter().position(|it| done < it.as_ref().end).unwrap_or(last).min(last);
    all.into_iter().take(last + 1).skip(first)
}

impl Ready {
    /// Lets the text go on where the run stood: in this phase, or at the end of the one before.
    pub fn read_on(&mut self, state: &State) -> Result<(), RunError> {
        let begin = self.lowered.phase.begin;
        let is_border = 0 < begin && state.step == begin;
        let went_on = match is_border {
            true => self.text.follow(&state.feed, self.is_cut_anew),
            false => self.text.seek(&state.feed),
        };
        Ok(went_on?)
    }
}

/// What was trained of each phase in this process; nothing if the job has no phases.
pub(super) fn told(job: &Job, losses: &[(u64, f64)]) -> Vec<Told> {
    let one = |phase: Phase| {
        let own = |point: &&(u64, f64)| phase.begin < point.0 && point.0 <= phase.end;
        let (first, last) = (losses.iter().find(own)?, losses.iter().rfind(own)?);
        Some(Told { name: phase.name?, first: *first, last: *last })
    };
    job.phases().into_iter().filter_map(one).collect()
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { name, first: (begin, before), last: (end, after) } = self;
        write!(f, "{name}: steps {begin} to {end}, loss {before:.3} -> {after:.3}")
    }
}

impl Told {
    /// The same for other programs.
    pub fn json(&self) -> Value {
        let Told { name, first: (begin, before), last: (end, after) } = self;
        json!({ "name": name, "begin": begin, "end": end, "first_loss": before, "loss": after })
    }
}
