//! Interleaved 1F1B: every stage holds `v` chunks and works through them in groups of `g`
//! microbatches.
//!
//! Narayanan et al., arXiv:2104.04473, section 2.2, with the groups and warm-up of Megatron-LM's
//! `schedules.py`. Stage `r` warms up with `2(p - r - 1) + (v - 1) g` forward passes. Kimi K2
//! (arXiv:2507.20534, section 2.4.2) adds one, so that in the steady phase each forward pass is
//! independent of the backward pass beside it, and the two can run as a pair, each under the
//! messages of the other's experts. Idle `(p - 1)(F + B)` of a chunk either way; the extra one
//! costs one chunk of activations.
//!
//! PyTorch parts the microbatches into `max(1, m / p)` even groups: ask for `group: m / that`.

use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Work},
    bare::Step,
    passes::split::put_off,
    schedule::{Pipeline, Unfit, pairs},
};

/// Parameters of interleaved 1F1B.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interleaved {
    /// Forward passes of the warm-up beyond the least.
    pub extra_warmup: usize,
    /// Whether the weight gradients are split off and follow the send of the input's gradient.
    pub split_backward: bool,
    /// Whether forward and backward pass of the steady phase are one; needs an extra warm-up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paired: bool,
    /// Microbatches of one chunk before the next chunk's turn; left out: as many as stages.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub group: Option<usize>,
}

/// Reads a number that stands there, so that no file has to write `Some`.
pub(super) fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<usize>, D::Error> {
    usize::deserialize(deserializer).map(Some)
}

impl Interleaved {
    /// Nothing asked for.
    pub const PLAIN: Self =
        Interleaved { extra_warmup: 0, split_backward: false, paired: false, group: None };

    /// Microbatches of a group: those asked for, or `p`, or all if there are fewer.
    fn group(&self, pipeline: Pipeline) -> usize {
        self.group.unwrap_or(pipeline.stages.min(pipeline.microbatches))
    }

    /// A group has at least `p` microbatches, or all; the last, shorter one too, or it is full.
    pub(super) fn fits(&self, pipeline: Pipeline) -> Result<(), Unfit> {
        let Pipeline { stages: p, microbatches: m, .. } = pipeline;
        let group = self.group(pipeline);
        if self.paired && self.extra_warmup == 0 {
            return Err(Unfit::Pairs { chunk: p * pipeline.virtual_stages - 1 });
        }
        if legal(p, m, group) {
            return Ok(());
        }
        let below = (1..m).rev().find(|&fewer| legal(p, fewer, group.min(fewer)));
        let above = (m + 1..=m + p.max(group)).find(|&more| legal(p, more, group));
        let microbatches = below.into_iter().chain(above).collect();
        let groups = (1..=m).filter(|&group| legal(p, m, group)).take(4).collect();
        Err(Unfit::Groups { group, microbatches, groups })
    }

    /// The cells of one stage.
    pub(super) fn steps(&self, pipeline: Pipeline, stage: usize) -> Vec<Step> {
        let due = 2 * (pipeline.stages - stage - 1)
            + (pipeline.virtual_stages - 1) * self.group(pipeline);
        let [forward, backward] = self.passes(pipeline, stage);
        let mut steps = pairs(due.saturating_add(self.extra_warmup), forward, backward);
        if !self.paired {
            steps = steps.iter().flat_map(Step::actions).map(Step::Work).collect();
        }
        if self.split_backward { put_off(steps, 0) } else { steps }
    }

    /// The forward and the backward passes of one stage, each in the order of their turns.
    pub(super) fn passes(&self, pipeline: Pipeline, stage: usize) -> [Vec<Action>; 2] {
        let (p, group) = (pipeline.stages, self.group(pipeline));
        let turns = |work: Work, last_first: bool| {
            let turn = turns(pipeline, group, last_first);
            let action = |(turn, microbatch)| Action { chunk: turn * p + stage, work, microbatch };
            turn.into_iter().map(action).collect()
        };
        [turns(Work::Forward, false), turns(Work::Backward, true)]
    }
}

fn legal(stages: usize, microbatches: usize, group: usize) -> bool {
    let rest = microbatches.checked_rem(group);
    let whole = rest.is_some_and(|rest| rest == 0 || rest >= stages);
    whole && group <= microbatches && (group >= stages || group == microbatches)
}

/// All (virtual stage, microbatch) in the order of their turns.
fn turns(pipeline: Pipeline, group: usize, last_first: bool) -> Vec<(usize, usize)> {
    let Pipeline { virtual_stages: v, microbatches: m, .. } = pipeline;
    let mut turns = Vec::with_capacity(v * m);
    for start in (0..m).step_by(group) {
        for turn in 0..v {
            let turn = if last_first { v - 1 - turn } else { turn };
            turns.extend((start..m.min(start + group)).map(|microbatch| (turn, microbatch)));
        }
    }
    turns
}
