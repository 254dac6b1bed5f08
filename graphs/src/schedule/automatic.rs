//! Automatic: orders made for given times of the work and a given room for activations.
//!
//! Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, section 3: ZB-1p is what comes
//! out with room for `p` microbatches a stage, as 1F1B has, ZB-2p with room for `2p`. The outline
//! of their greedy rules is kept, but the step is played through in time, all stages at once:
//!
//! - until its first `I` comes, a stage does as many `F` as fit before it;
//! - then `F` and `I`, whichever can start first, in turn where both can;
//! - `W` where there is no room for the next `F`, where what comes next is far enough away, and at
//!   the end.
//!
//! What is best where a rule leaves a choice depends on the times, so all combinations of choices
//! are played, each the same for all stages, and after them ZB-H1 and, with room for `2p`, ZB-H2.
//! The one is kept whose longest stage, from its first start to its last end, is shortest: the
//! paper's cost. Of equals it is the one that ends first. So no stage takes longer than the longest
//! of the fixed order with the same room.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::{
    action::Action,
    schedule::{Pipeline, Schedule, automatic::play::Play},
};

mod play;

/// Times of one stage's work on one microbatch, in any unit, and its memory, in any other.
///
/// They are whole numbers, so that orders are the same on every machine; `forward: 18522` and
/// `comm: 601` are milliseconds to three places. With `freed` and `kept` both 0 there is room for
/// everything.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Automatic {
    /// Forward pass, `F`.
    pub forward: u32,
    /// Gradient of the input, `I`.
    pub input: u32,
    /// Gradient of the weights, `W`.
    pub weight: u32,
    /// Way from one stage to the next.
    pub comm: u32,
    /// Part of what `F` saves that `I` frees.
    pub freed: u32,
    /// Part of what `F` saves that is kept for `W`.
    pub kept: u32,
    /// A stage has room for this times `p` microbatches: 1 is ZB-1p, 2 is ZB-2p.
    pub limit: NonZeroU32,
}

/// What the rules leave open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Choice {
    /// Whether a last `F` is done before the first `I` although it makes the `I` wait.
    extra: bool,
    /// Whether a stage has done one `F` less than the one before it until its first `I` comes.
    falls: bool,
    /// The shortest wait that is filled with a `W`, in sixteenths of its time.
    filled: u64,
}

/// What leads a play.
enum Lead {
    /// The rules, with these choices.
    Rules(Choice),
    /// Orders that are known already.
    Orders(Vec<Vec<Action>>),
}

impl Choice {
    const SIXTEENTHS: u64 = 16;

    /// All combinations.
    fn all() -> impl Iterator<Item = Choice> {
        let both = [(false, false), (false, true), (true, false), (true, true)];
        [0, 1, 8, Self::SIXTEENTHS]
            .into_iter()
            .flat_map(move |filled| both.map(|(extra, falls)| Choice { extra, falls, filled }))
    }
}

impl Automatic {
    /// Equal times, messages for nothing, and the memory of 1F1B.
    pub const PLAIN: Self = Automatic {
        forward: 1,
        input: 1,
        weight: 1,
        comm: 0,
        freed: 0,
        kept: 1,
        limit: NonZeroU32::MIN,
    };

    /// The actions of all stages.
    pub(super) fn orders(&self, pipeline: Pipeline) -> Vec<Vec<Action>> {
        let known = [Schedule::ZbH1, Schedule::ZbH2].into_iter().take(self.limit.get() as usize);
        let known = known.map(|schedule| Lead::Orders(schedule.orders(pipeline)));
        let leads = Choice::all().map(Lead::Rules).chain(known);
        let plays = leads.map(|lead| Play::finished(self, lead, pipeline));
        let best = plays.min_by_key(|play| (play.longest(), play.makespan()));
        best.map(Play::orders).unwrap_or_default()
    }

    /// What `F` saves.
    fn saved(&self) -> u64 {
        u64::from(self.freed) + u64::from(self.kept)
    }

    /// What a stage has room for.
    fn room(&self, stages: usize) -> u64 {
        let microbatches = (stages as u64).saturating_mul(u64::from(self.limit.get()));
        microbatches.saturating_mul(self.saved())
    }
}

impl Default for Automatic {
    fn default() -> Self {
        Self::PLAIN
    }
}

#[cfg(test)]
mod tests;
