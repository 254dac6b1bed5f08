//! GPipe: all forward passes, then all backward passes.
//!
//! Huang et al., arXiv:1811.06965. Idle `(p - 1)(F + B)`, and all `m` microbatches held at once:
//! the simplest order, to compare others with.

use crate::{
    action::{Action, Work},
    schedule::{Pipeline, microbatches},
};

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let all = |work| microbatches(pipeline, stage, work);
    [all(Work::Forward), all(Work::Backward)].concat()
}
