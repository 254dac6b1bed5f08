//! From a checked job to what the runtime starts from: model, text, plan, settings.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use graphs::{Decoder, ModelGraph, Plan};
use ops::Tensor;
use runtime::{RunError, Setup, checkpoint::State};

use crate::{
    data::{self, Choice, DataError, Mix, Tokenizer},
    device,
    exit::Failure,
    huggingface::{self, FolderError},
    job::{Actor, Init, Job, Model},
    machine,
    phase::Phase,
};

/// How long nothing may move before a run is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Why a checked job cannot be started on this machine.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Text cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A folder of a trained model cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The tokenizer knows more tokens than the model.
    #[error("the tokenizer has {tokens} tokens, the model's vocabulary only {vocab}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the model's embedding.
        vocab: usize,
    },
    /// Weights to start from are of another model.
    #[error("the weights in {path} are of another model than the job's")]
    OtherModel {
        /// The folder.
        path: String,
    },
    /// A plan does not fit the model or the batch; a job that was checked has none such.
    #[error("{0}")]
    Plan(String),
    /// The rotation of a model without attention is to be stretched.
    #[error("`yarn` stretches the rotation of MlaAttention, and the model has none")]
    NoRotation,
    /// The runtime refuses.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// The trained network of a job.
pub struct Network {
    /// The graph that is lowered and run.
    pub graph: ModelGraph,
    /// The same in a few numbers, if it is of the DeepSeek-V3 and Kimi-K2 family.
    pub decoder: Option<Decoder>,
    /// Weights of the folder that the model or `init` names; empty for fresh ones.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Builds the model, reading the folder that the job names, if any.
///
/// # Errors
///
/// [`PrepareError::Folder`] and [`PrepareError::OtherModel`].
pub fn network(job: &Job) -> Result<Network, PrepareError> {
    let (_, train) = job.learner();
    let from = match (&job.model, &train.init) {
        (Model::HuggingFace(dir), _) | (_, Init::HuggingFace(dir)) => Some(dir),
        _ => None,
    };
    let imported = from.map(|dir| huggingface::read(dir).map(|read| (dir, read))).transpose()?;
    let graph = match (job.model.graph(), &imported) {
        (Some(graph), _) => graph.map_err(|mistakes| PrepareError::Plan(listed(&mistakes)))?,
        (None, Some((_, read))) => of_decoder(&read.decoder)?,
        (None, None) => unreachable!("a model without a graph is a folder"),
    };
    let tensors = match imported {
        None => BTreeMap::new(),
        Some((dir, read)) => {
            let other = ModelGraph::new(&read.decoder.expand());
            if other.is_ok_and(|other| other.parameters() != graph.parameters()) {
                return Err(PrepareError::OtherModel { path: dir.display().to_string() });
            }
            // The model of a folder starts from its weights unless the learner says Fresh and
            // names no folder, which for such a model means the same folder.
            read.tensors
        }
    };
    let graph = stretched(graph, job)?;
    let decoder = Decoder::recognise(&graph);
    Ok(Network { graph, decoder, tensors })
}

/// Builds the model without weights: of a folder, its shape alone is read.
///
/// # Errors
///
/// As [`network`].
pub fn shape(job: &Job) -> Result<Network, PrepareError> {
    let graph = match (&job.model, job.model.graph()) {
        (Model::HuggingFace(folder), _) => of_decoder(&huggingface::shape(folder)?.0)?,
        (_, Some(graph)) => graph.map_err(|mistakes| PrepareError::Plan(listed(&mistakes)))?,
        (_, None) => unreachable!("a model without a graph is a folder"),
    };
    let graph = stretched(graph, job)?;
    let decoder = Decoder::recognise(&graph);
    Ok(Network { graph, decoder, tensors: BTreeMap::new() })
}

/// The model with the rotation that the learner asks for.
fn stretched(graph: ModelGraph, job: &Job) -> Result<ModelGraph, PrepareError> {
    match &job.learner().1.yarn {
        Some(yarn) => graph.stretched(yarn).ok_or(PrepareError::NoRotation),
        None => Ok(graph),
    }
}

/// The graph of a decoder.
///
/// # Errors
///
/// [`PrepareError::Plan`] with all mistakes of its numbers.
pub fn of_decoder(decoder: &Decoder) -> Result<ModelGraph, PrepareError> {
    let checked = decoder.check().and_then(|()| ModelGraph::new(&decoder.expand()));
    checked.map_err(|mistakes| PrepareError::Plan(listed(&mistakes)))
}

fn listed<E: ToString>(mistakes: &[E]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Lowers the job's plan, or one of its named plans, with the given number of lanes if any.
///
/// # Errors
///
/// [`PrepareError::Plan`] with all that does not fit.
pub fn plan(
    job: &Job,
    graph: &ModelGraph,
    name: Option<&str>,
    lanes: Option<usize>,
) -> Result<Plan, PrepareError> {
    let spec = match name {
        None => job.plan(),
        Some(name) => job.plans.get(name).ok_or_else(|| {
            let known = job.plans.keys().cloned().collect::<Vec<_>>().join(", ");
            PrepareError::Plan(format!("the job has no plan `{name}`; it has {known}"))
        })?,
    };
    let mut batch = job.batch(spec);
    batch.lanes = lanes.or(batch.lanes);
    graphs::lower(graph, spec, batch).map_err(|mistakes| PrepareError::Plan(listed(&mistakes)))
}

/// Everything the actors start from at the beginning of a phase, or where `state` left off.
///
/// # Errors
///
/// Those of [`device::places`].
pub fn setup(
    phase: &Phase,
    network: Network,
    plan: Plan,
    state: Option<State>,
) -> Result<Setup, Failure> {
    let job = &phase.job;
    let places = device::places(job, &network.graph, &plan)?;
    let (_, train) = job.learner();
    let (tensors, step, tokens) = match state {
        Some(state) => (state.tensors, state.step, state.tokens),
        None => (network.tensors, phase.begin, phase.tokens),
    };
    Ok(Setup {
        plan,
        graph: network.graph,
        optimizer: train.optimizer.clone(),
        rate: phase.rate.clone(),
        clip: train.clip.map(f64::from),
        dtype: job.precision.dtype(),
        seed: job.seed,
        audit: false,
        tensors,
        step,
        tokens,
        patience: PATIENCE,
        places,
        machine: machine::emulated(job),
    })
}

/// Opens the text of a job, in place of which `folder` may name a folder of text files.
///
/// # Errors
///
/// [`PrepareError::Data`], and [`PrepareError::Vocabulary`] if the tokens do not fit the model.
pub fn text(
    job: &Job,
    graph: &ModelGraph,
    folder: Option<&PathBuf>,
    cache: &std::path::Path,
) -> Result<(Mix, Tokenizer), PrepareError> {
    let (mut mixes, tokenizer) = texts([job], graph, folder, cache)?;
    Ok((mixes.remove(0), tokenizer))
}

/// Opens the text of all phases of a run, under one tokenizer.
///
/// # Errors
///
/// As [`text`].
pub fn texts<'j>(
    phases: impl IntoIterator<Item = &'j Job>,
    graph: &ModelGraph,
    folder: Option<&PathBuf>,
    cache: &std::path::Path,
) -> Result<(Vec<Mix>, Tokenizer), PrepareError> {
    let read = |job: &Job| match folder {
        Some(path) => {
            let source = data::Source::Folder { path: path.clone() };
            vec![data::Corpus { name: "data".into(), source, weight: 1.0 }]
        }
        None => corpora(job),
    };
    let jobs: Vec<&Job> = phases.into_iter().collect();
    let mixes: Vec<Vec<data::Corpus>> = jobs.iter().map(|job| read(job)).collect();
    let about = jobs.first().expect("a checked job has a phase");
    let choice = Choice::from(&about.tokenizer);
    let (mixes, tokenizer) = Mix::open_all(&mixes, &choice, cache, Some(about.seed))?;
    tokens_fit(graph, &tokenizer)?;
    Ok((mixes, tokenizer))
}

/// Whether the model has a row for every token.
///
/// # Errors
///
/// [`PrepareError::Vocabulary`] if not.
pub fn tokens_fit(graph: &ModelGraph, tokenizer: &Tokenizer) -> Result<(), PrepareError> {
    let (tokens, vocab) = (tokenizer.vocab(), vocabulary(graph));
    if vocab < tokens { Err(PrepareError::Vocabulary { tokens, vocab }) } else { Ok(()) }
}

/// Rows of the model's head.
pub fn vocabulary(graph: &ModelGraph) -> usize {
    let heads = graph.nodes().filter_map(|node| match &node.op {
        ops::Op::CrossEntropy(head) => Some(head.vocab),
        _ => None,
    });
    heads.max().unwrap_or(0)
}

/// The corpora that the learner reads, by weight.
fn corpora(job: &Job) -> Vec<data::Corpus> {
    let (_, train) = job.learner();
    let mut all = Vec::new();
    for loss in &train.loss {
        match job.actors.get(loss.of()) {
            Some(Actor::Mix(mix)) => {
                all.extend(mix.0.iter().filter_map(|(name, weight)| corpus(job, name, *weight)));
            }
            _ => all.extend(corpus(job, loss.of(), 1.0)),
        }
    }
    all
}

fn corpus(job: &Job, name: &str, weight: f64) -> Option<data::Corpus> {
    let Some(Actor::Corpus(corpus)) = job.actors.get(name) else { return None };
    let source = data::Source::from(&corpus.from);
    Some(data::Corpus { name: name.into(), source, weight })
}
