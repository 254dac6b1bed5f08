//! Interleaved 1F1B with split backward passes, as PyTorch's `ScheduleInterleavedZeroBubble`.
//!
//! Groups and turns are those of [interleaved 1F1B](super::interleaved), the microbatches being
//! parted into groups as even as can be, of `p` or more. Stage `r` warms up with `(v - 1) g + p -
//! r - 1` forward passes, half of the ramp of interleaved 1F1B, and puts off the weight gradients
//! of `r` backward passes (Qi et al., arXiv:2401.10241). Idle `(p - 1)(F + I - W)` of a chunk;
//! every stage holds up to `p v` chunks.

use crate::{
    action::Action,
    passes::split::split,
    schedule::{Interleaved, Pipeline, Unfit, alternate},
    spec::WeightGrad,
};

/// Microbatches of a group, if the groups come out even.
fn group(pipeline: Pipeline) -> Option<usize> {
    let Pipeline { stages, microbatches, .. } = pipeline;
    let rounds = (microbatches / stages).max(1);
    microbatches.is_multiple_of(rounds).then_some(microbatches / rounds)
}

/// Whether the microbatches fall into even groups of `p` or more.
pub(super) fn fits(pipeline: Pipeline) -> Result<(), Unfit> {
    let Pipeline { stages, microbatches, .. } = pipeline;
    if group(pipeline).is_some() {
        return Ok(());
    }
    let even = |&microbatches: &usize| group(Pipeline { microbatches, ..pipeline }).is_some();
    let below = (1..microbatches).rev().find(even);
    let above = (microbatches + 1..=microbatches + stages).find(even);
    let near = below.into_iter().chain(above).collect();
    Err(Unfit::Groups { group: stages, microbatches: near, groups: Vec::new() })
}

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let group = group(pipeline).unwrap_or(pipeline.microbatches);
    let warm_up = (pipeline.virtual_stages - 1) * group + pipeline.stages - stage - 1;
    let joined = Interleaved { group: Some(group), ..Interleaved::default() };
    let [forward, backward] = joined.passes(pipeline, stage);
    split(&alternate(warm_up, forward, backward), WeightGrad::Late(stage))
}
