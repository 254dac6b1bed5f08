//! ZB-H1: 1F1B with the weight gradients moved into the bubbles, at the memory of 1F1B.
//!
//! Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, section 2.2. Stage `r` warms up
//! like 1F1B and puts off the weight gradients of `r` microbatches, so that the input's gradients
//! run ahead to the first stage. Idle `(p - 1)(F + I - W)`: a third of that of 1F1B where `F`, `I`
//! and `W` take equal times. Stage `r` holds at most `p` microbatches.

use crate::{
    action::{Action, Work},
    passes::split::split,
    schedule::{Pipeline, alternate, microbatches},
    spec::WeightGrad,
};

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let all = |work| microbatches(pipeline, stage, work);
    let joined = alternate(pipeline.stages - stage - 1, all(Work::Forward), all(Work::Backward));
    split(&joined, WeightGrad::Late(stage))
}
