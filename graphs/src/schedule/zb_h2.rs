//! ZB-H2: no bubble between the first and the last work of a stage, for twice the memory of 1F1B.
//!
//! Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, section 2.2. Stage `r` warms up
//! with `2(p - r - 1)` forward passes, which fill the ramp, and puts off the weight gradients of
//! `2r` microbatches, which fill the end. Idle `(p - 1)(F + I - 2W)` within the span of a stage:
//! none where the times are equal, from `m = 2p - 1` on. A stage holds at most `2p - 1`
//! microbatches. The makespan keeps the skew of the ramp.

use crate::{
    action::{Action, Work},
    passes::split::split,
    schedule::{Pipeline, alternate, microbatches},
    spec::WeightGrad,
};

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let all = |work| microbatches(pipeline, stage, work);
    let warm_up = 2 * (pipeline.stages - stage - 1);
    let joined = alternate(warm_up, all(Work::Forward), all(Work::Backward));
    split(&joined, WeightGrad::Late(2 * stage))
}
