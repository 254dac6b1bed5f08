//! GPipe: all forward passes, then all backward passes.
//!
//! Huang et al., arXiv:1811.06965. Idle `(p - 1)(F + B)`, and all `m` microbatches held at once:
//! the simplest order, to compare others with.

use crate::{
    action::{Action, Work},
    schedule::Pipeline,
};

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let all = |work| {
        (0..pipeline.microbatches).map(move |microbatch| Action { chunk: stage, work, microbatch })
    };
    all(Work::Forward).chain(all(Work::Backward)).collect()
}
