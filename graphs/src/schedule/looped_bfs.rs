//! Looped breadth-first: every chunk of a stage does all its microbatches before the next chunk.
//!
//! Lamy-Poirier, arXiv:2211.05953. Forward passes go chunk by chunk, backward passes the same way
//! back, chunks and microbatches both reversed, as in PyTorch. All `m v` activations are held at
//! once; the gradients of a chunk are ready early, which is what it is for. Since the backward
//! passes are out of the order of microbatches, lowering puts their weight gradients off; see
//! [`crate::passes::rising`].

use crate::{
    action::{Action, Work},
    schedule::{Pipeline, Placement},
};

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let Pipeline { stages, virtual_stages, microbatches } = pipeline;
    let chunks = || (0..virtual_stages).map(|turn| Placement::Loop.chunk_of(stage, turn, stages));
    let forward = chunks().flat_map(|chunk| {
        (0..microbatches).map(move |microbatch| Action { chunk, work: Work::Forward, microbatch })
    });
    let forward: Vec<Action> = forward.collect();
    let backward = forward.iter().rev().map(|&action| Action { work: Work::Backward, ..action });
    forward.iter().copied().chain(backward).collect()
}
