//! A stretch of a run, as a job writes it.

use ops::Yarn;
use serde::Deserialize;

use crate::{
    job::{LearningRate, Loss, PlanChoice},
    quantity::Count,
};

/// What one phase of a run does otherwise; what it leaves out, it does as the learner says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PhaseSpec {
    /// Its name, of which there is one.
    pub name: String,
    /// Tokens that it trains on, rounded up to whole steps.
    pub tokens: Count,
    /// What is minimised, and so what is read.
    #[serde(default)]
    pub loss: Option<Vec<Loss>>,
    /// Tokens of a sequence.
    #[serde(default)]
    pub context: Option<Count>,
    /// Tokens of a step.
    #[serde(default)]
    pub batch: Option<Count>,
    /// Learning rate, counted from the beginning of the phase; left out: the one before goes on.
    #[serde(default)]
    pub lr: Option<LearningRate>,
    /// Stretching of the rotation in every attention.
    #[serde(default)]
    pub yarn: Option<Yarn>,
    /// How the network is spread; a plan in place changes the job's.
    #[serde(default)]
    pub plan: Option<PlanChoice>,
}
