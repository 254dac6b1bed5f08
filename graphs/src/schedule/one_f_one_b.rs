//! 1F1B: after a warm-up of `p - r - 1` forward passes, one forward and one backward in turn.
//!
//! Narayanan et al., arXiv:1806.03377, section 3.2, in the flushed form of Megatron-LM. Idle
//! `(p - 1)(F + B)` like GPipe, but stage `r` holds at most `p - r` microbatches.

use crate::{
    action::{Action, Work},
    schedule::{Pipeline, alternate, microbatches},
};

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let all = |work| microbatches(pipeline, stage, work);
    alternate(pipeline.stages - stage - 1, all(Work::Forward), all(Work::Backward))
}
