//! The phases of a run: made ready before the first step, chosen when a run goes on, told about.

use std::{fmt, path::PathBuf};

use graphs::{Decoder, ModelGraph, Plan};
use runtime::{Feed, RunError, checkpoint::State};
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

/// A phase that is ready to be trained.
pub(super) struct Ready {
    pub phase: Phase,
    pub network: Network,
    pub plan: Plan,
    pub text: Mix,
    /// Loss of a model that knows only how frequent the words of its text are.
    pub unigram: f64,
    /// Whether its sequences are longer or shorter than those of the phase before.
    is_cut_anew: bool,
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

/// Makes all phases of a job ready, so that none fails after another has been trained.
///
/// With `force`, a plan may hold more than its devices do; the run ends when it does.
pub(super) fn ready(
    job: &Job,
    data: Option<&PathBuf>,
    force: bool,
) -> Result<(Vec<Ready>, Tokenizer), Failure> {
    let phases = job.phases();
    let mut lowered = Vec::new();
    for (number, phase) in phases.iter().enumerate() {
        // Only the first phase can begin with weights that are read from a folder.
        let network = if number == 0 { prepare::network } else { prepare::shape };
        let network = network(&phase.job)?;
        let plan = prepare::plan(&phase.job, &network.graph, None, None)?;
        device::fits(&phase.job, &network.graph, &plan)?;
        if !force {
            let fits = memory::fits_devices(&phase.job, &network.graph, &plan);
            fits.map_err(|failure| failure.in_phase(phase.name.as_deref()))?;
        }
        lowered.push((network, plan));
    }
    let (graph, cache) = (&lowered[0].0.graph, folder::cache());
    let jobs = phases.iter().map(|phase| &phase.job);
    let (texts, tokenizer) = prepare::texts(jobs, graph, data, &cache)?;
    let vocab = prepare::vocabulary(graph);
    let mut ready: Vec<Ready> = Vec::new();
    for ((phase, (network, plan)), mut text) in phases.into_iter().zip(lowered).zip(texts) {
        let unigram = text.unigram_nats(vocab).map_err(PrepareError::from)?;
        let context = plan.batch.context;
        let is_cut_anew = ready.last().is_some_and(|it| it.plan.batch.context != context);
        ready.push(Ready { phase, network, plan, text, unigram, is_cut_anew });
    }
    Ok((ready, tokenizer))
}

/// The phases of a run of so many steps that are left when some are done; at least its last one.
pub(super) fn left(ready: Vec<Ready>, done: u64, steps: u64) -> impl Iterator<Item = Ready> {
    let last = ready.iter().rposition(|it| it.phase.begin < steps).unwrap_or(0);
    let first = ready.iter().position(|it| done < it.phase.end).unwrap_or(last).min(last);
    ready.into_iter().take(last + 1).skip(first)
}

impl Ready {
    /// Lets the text go on where the run stood: in this phase, or at the end of the one before.
    pub fn read_on(&mut self, state: &State) -> Result<(), RunError> {
        let is_border = 0 < self.phase.begin && state.step == self.phase.begin;
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
