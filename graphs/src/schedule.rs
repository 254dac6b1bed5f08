//! Orders of work: pure functions from a shape of pipeline to the actions of one stage.
//!
//! A schedule knows neither sends nor times; passes and the checker do the rest. Adding one means
//! one file here and a line in each `match` of this one.

use serde::{Deserialize, Serialize};

use crate::action::Action;

mod gpipe;
mod interleaved;
mod one_f_one_b;

pub use crate::schedule::interleaved::Interleaved;

/// What a schedule needs to know about a pipeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pipeline {
    /// Stages, `p`.
    pub stages: usize,
    /// Chunks of each stage, `v`; chunk `c` lives on stage `c % p`.
    pub virtual_stages: usize,
    /// Microbatches of a step, `m`.
    pub microbatches: usize,
}

/// A rule that makes orders, as job files name it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Schedule {
    /// All forward passes, then all backward passes; Huang et al., arXiv:1811.06965.
    GPipe,
    /// One forward, one backward; Narayanan et al., arXiv:1806.03377.
    OneFOneB,
    /// 1F1B over several chunks a stage; Narayanan et al., arXiv:2104.04473, section 2.2.
    Interleaved1F1B(Interleaved),
}

/// Why a schedule cannot run on a pipeline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// The schedule knows only one chunk a stage.
    VirtualStages,
    /// The microbatches do not fall into groups.
    Groups {
        /// Microbatches of a group.
        group: usize,
        /// Numbers of microbatches close by that would do.
        microbatches: Vec<usize>,
        /// Group sizes that would do for the number asked for.
        groups: Vec<usize>,
    },
}

impl Schedule {
    /// The names job files may write.
    pub const NAMES: &[&str] = &["GPipe", "OneFOneB", "Interleaved1F1B"];

    /// The name job files write.
    pub fn name(&self) -> &'static str {
        match self {
            Schedule::GPipe => "GPipe",
            Schedule::OneFOneB => "OneFOneB",
            Schedule::Interleaved1F1B(_) => "Interleaved1F1B",
        }
    }

    /// Says whether the schedule knows such a pipeline.
    ///
    /// # Errors
    ///
    /// [`Unfit`], with what would do instead.
    pub fn fits(&self, pipeline: Pipeline) -> Result<(), Unfit> {
        match self {
            Schedule::GPipe | Schedule::OneFOneB if pipeline.virtual_stages > 1 => {
                Err(Unfit::VirtualStages)
            }
            Schedule::GPipe | Schedule::OneFOneB => Ok(()),
            Schedule::Interleaved1F1B(rule) => rule.fits(pipeline),
        }
    }

    /// The actions of one stage, in order, of a pipeline that [fits](Schedule::fits).
    pub fn order(&self, pipeline: Pipeline, stage: usize) -> Vec<Action> {
        match self {
            Schedule::GPipe => gpipe::order(pipeline, stage),
            Schedule::OneFOneB => one_f_one_b::order(pipeline, stage),
            Schedule::Interleaved1F1B(rule) => rule.order(pipeline, stage),
        }
    }

    /// The orders of all stages.
    pub fn orders(&self, pipeline: Pipeline) -> Vec<Vec<Action>> {
        (0..pipeline.stages).map(|stage| self.order(pipeline, stage)).collect()
    }
}

/// `warm_up` forward passes, then one forward and one backward in turn, then what is left.
fn alternate(warm_up: usize, forward: Vec<Action>, backward: Vec<Action>) -> Vec<Action> {
    let mut order = Vec::with_capacity(2 * forward.len());
    let mut backward = backward.into_iter();
    for (position, action) in forward.into_iter().enumerate() {
        order.push(action);
        if position >= warm_up {
            order.extend(backward.next());
        }
    }
    order.extend(backward);
    order
}

#[cfg(test)]
pub(crate) mod tests;
