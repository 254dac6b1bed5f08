//! The actor that learns.

use std::path::PathBuf;

use graphs::{PlanSpec, plan::Batch};
use ops::{Yarn, optim::Optimizer};
use serde::Deserialize;

use crate::{
    job::{LearningRate, PhaseSpec},
    quantity::Count,
};

/// Trains the job's model.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Where the weights come from.
    #[serde(default)]
    pub init: Init,
    /// What is minimised; today one cross-entropy.
    pub loss: Vec<Loss>,
    /// Tokens of a sequence.
    pub context: Count,
    /// Tokens of a step, over all ranks.
    pub batch: Count,
    /// Fixed lanes in which gradients are summed, so that every `dp * ep` that divides them gives
    /// the same bits; left out: each holder of a parameter has one sum, which takes least memory.
    #[serde(default)]
    pub lanes: Option<usize>,
    /// Learning rate over time.
    pub lr: LearningRate,
    /// Rule that turns gradients into weights.
    pub optimizer: Optimizer,
    /// Norm of the whole gradient above which the gradients of AdamW's parameters are scaled
    /// down to it; Muon does not feel the scale of a gradient. Left out: no limit.
    #[serde(default)]
    pub clip: Option<f32>,
    /// Stretching of the rotation in every attention; left out: as the model says.
    #[serde(default)]
    pub yarn: Option<Yarn>,
    /// Stretches of the run that differ from each other; left out: the run is one.
    #[serde(default)]
    pub phases: Vec<PhaseSpec>,
}

impl Train {
    /// The learner as it trains in one of its phases.
    pub(crate) fn during(&self, phase: &PhaseSpec) -> Self {
        Train {
            loss: phase.loss.clone().unwrap_or_else(|| self.loss.clone()),
            context: phase.context.unwrap_or(self.context),
            batch: phase.batch.unwrap_or(self.batch),
            lr: phase.lr.clone().unwrap_or_else(|| self.lr.clone()),
            yarn: phase.yarn.clone().or_else(|| self.yarn.clone()),
            phases: Vec::new(),
            ..self.clone()
        }
    }

    /// How the batch is cut under a plan.
    pub(crate) fn cut(&self, plan: &PlanSpec) -> Batch {
        Batch {
            sequences: self.sequences(),
            context: self.context.0 as usize,
            microbatch: plan.microbatch,
            lanes: self.lanes,
        }
    }

    /// Sequences of a step.
    pub fn sequences(&self) -> usize {
        (self.batch.0 / self.context.0.max(1)) as usize
    }
}

/// Where the weights come from.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Init {
    /// Random numbers, keyed by the seed and the names of the weights.
    #[default]
    Fresh,
    /// A folder with weights under transformers' names.
    HuggingFace(PathBuf),
}

/// One term of what is minimised.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Loss {
    /// Mean negative log-likelihood of the next token.
    CrossEntropy {
        /// Corpus or mix that it reads.
        of: String,
    },
}

impl Loss {
    /// The actor that it reads.
    pub fn of(&self) -> &str {
        match self {
            Loss::CrossEntropy { of } => of,
        }
    }
}
