//! What a job is, field by field, as the file says it.
//!
//! A [`Job`] that [`crate::load()`] returned keeps the rules of `crate::check`; nobody checks them
//! again. Paths in it are relative to the folder in which the program runs.

mod actors;
mod cluster;
mod expect;
mod learner;
mod model;
mod output;
mod phase;
mod rate;

use std::collections::BTreeMap;

use graphs::{PlanSpec, plan::Batch};
use ops::DType;
use serde::Deserialize;

pub use self::{
    actors::{Actor, Corpus, Mix, RustSources, Source, Tokenizer},
    cluster::Cluster,
    expect::Expect,
    learner::{Init, Loss, Train},
    model::Model,
    output::{Checkpoint, Export, Metrics},
    phase::PhaseSpec,
    rate::{Constant, Cosine, Decay, Fall, LearningRate, Linear, Stretch, Wsd},
};
use crate::quantity::{Count, Extent};

/// One training run.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Name of the run, for people and folders.
    pub name: String,
    /// Key of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// Format of activations and of the weights that compute.
    #[serde(default)]
    pub precision: Precision,
    /// What it computes on.
    #[serde(default)]
    pub device: Device,
    /// The trained network.
    pub model: Model,
    /// How the network is spread; left out: on one rank.
    #[serde(default)]
    pub plan: PlanChoice,
    /// Plans to choose from.
    #[serde(default)]
    pub plans: BTreeMap<String, PlanSpec>,
    /// Where the plan is to run; left out: on this machine.
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// What must follow from the plan.
    #[serde(default)]
    pub expect: Expect,
    /// How text becomes tokens.
    #[serde(default)]
    pub tokenizer: Tokenizer,
    /// Who takes part, by name; one of them learns.
    pub actors: BTreeMap<String, Actor>,
    /// When the run is over, unless its last phase ends before; left out: at the end of that.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// Where the state of the run is kept; left out: nowhere.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// Where figures of each step go.
    #[serde(default)]
    pub metrics: Vec<Metrics>,
}

/// Format of activations and of the weights that compute.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// The upper half of an F32; sums and the optimizer stay in F32.
    Bf16,
}

impl Precision {
    /// The number format that tensors know.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::Bf16,
        }
    }
}

/// What a job computes on.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Device {
    /// The GPUs of this machine, or the processor if there is none.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPUs of this machine.
    Gpu,
}

/// The plan of a job.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename = "Plan")]
pub enum PlanChoice {
    /// One of the job's `plans`.
    Named(String),
    /// Written in place.
    Inline(Box<PlanSpec>),
}

impl Default for PlanChoice {
    fn default() -> Self {
        PlanChoice::Inline(Box::default())
    }
}

/// When a run is over.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Stop {
    /// After so many optimizer steps.
    Steps(Count),
    /// After so many tokens.
    Tokens(Count),
}

impl Stop {
    /// Optimizer steps of `batch` tokens until then.
    pub fn steps(self, batch: u64) -> u64 {
        match self {
            Stop::Steps(count) => count.0,
            Stop::Tokens(count) => Extent::Tokens(count.0).steps(batch),
        }
    }
}

impl Job {
    /// The actor that learns, with its name.
    ///
    /// # Panics
    ///
    /// If there is none, which [`crate::load()`] refuses.
    pub fn learner(&self) -> (&str, &Train) {
        let mut learners = self.learners();
        learners.next().expect("load has found one learner")
    }

    /// All actors that learn; a loaded job has one.
    pub fn learners(&self) -> impl Iterator<Item = (&str, &Train)> {
        self.actors.iter().filter_map(|(name, actor)| match actor {
            Actor::Train(train) => Some((name.as_str(), &**train)),
            Actor::Corpus(_) | Actor::Mix(_) => None,
        })
    }

    /// The plan to run, unless it is named and does not exist.
    pub fn chosen_plan(&self) -> Option<&PlanSpec> {
        match &self.plan {
            PlanChoice::Named(name) => self.plans.get(name),
            PlanChoice::Inline(spec) => Some(spec),
        }
    }

    /// The plan to run.
    ///
    /// # Panics
    ///
    /// If it does not exist, which [`crate::load()`] refuses.
    pub fn plan(&self) -> &PlanSpec {
        self.chosen_plan().expect("load has found the plan")
    }

    /// Name of the plan to run, if it has one.
    pub fn plan_name(&self) -> Option<&str> {
        match &self.plan {
            PlanChoice::Named(name) => Some(name),
            PlanChoice::Inline(_) => None,
        }
    }

    /// How the learner's batch is cut under a plan.
    pub fn batch(&self, plan: &PlanSpec) -> Batch {
        self.learner().1.cut(plan)
    }
}
