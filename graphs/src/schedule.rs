//! Orders of work: pure functions from a shape of pipeline to the actions of one stage.
//!
//! A schedule knows neither sends nor times; passes and the checker do the rest. Adding one means
//! one file here and a line in each `match` of this one.

use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Work},
    bare::Step,
    check::Hang,
};

mod automatic;
mod dual_pipe_v;
mod gpipe;
mod hybrid;
mod interleaved;
mod interleaved_zero_bubble;
mod looped_bfs;
mod one_f_one_b;
mod placement;
mod v_block;
mod writer;
mod written;
mod zb_h1;
mod zb_h2;
mod zb_v;

use crate::schedule::v_block::Block;
pub use crate::schedule::{
    automatic::Automatic, hybrid::Hybrid, interleaved::Interleaved, placement::Placement,
    written::Written,
};

/// What a schedule needs to know about a pipeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pipeline {
    /// Stages, `p`.
    pub stages: usize,
    /// Chunks of each stage, `v`; a [`Placement`] says which.
    pub virtual_stages: usize,
    /// Microbatches of a step, `m`.
    pub microbatches: usize,
}

/// A rule that makes orders, as job files name it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Schedule {
    /// All forward passes, then all backward passes; Huang et al., arXiv:1811.06965.
    GPipe,
    /// One forward, one backward; Narayanan et al., arXiv:1806.03377.
    OneFOneB,
    /// 1F1B over several chunks a stage; Narayanan et al., arXiv:2104.04473, section 2.2.
    Interleaved1F1B(Interleaved),
    /// Chunk by chunk, breadth first; Lamy-Poirier, arXiv:2211.05953.
    LoopedBfs,
    /// 1F1B with weight gradients in the bubbles; Qi et al., arXiv:2401.10241, section 2.2.
    ZbH1,
    /// The same without bubbles, for twice the memory.
    ZbH2,
    /// Interleaved 1F1B with weight gradients in the bubbles.
    InterleavedZeroBubble,
    /// Zero bubble on a V of two chunks a stage; Qi et al., arXiv:2401.10241, section 6.
    ZbV,
    /// Both ways of a V at once; DeepSeek-V3, arXiv:2412.19437, section 3.2.1.
    DualPipeV,
    /// ZB-V's V at half of its memory; Qi et al., arXiv:2405.15362.
    VHalf,
    /// ZB-V's V at a third of its memory; Qi et al., arXiv:2405.15362.
    VMin,
    /// Interleaved 1F1B in pairs, with weight gradients apart where they fill waiting time.
    Hybrid(Hybrid),
    /// Whatever waits least at given times and memory, ZB-1p and ZB-2p; Qi et al.,
    /// arXiv:2401.10241, section 3.
    Automatic(Automatic),
    /// Orders that stand in the job, or in a file that it names with `Csv(..)`.
    Orders(Written),
}

/// Why a schedule cannot run on a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Unfit {
    /// The schedule knows only so many chunks a stage.
    VirtualStages {
        /// Chunks of a stage that it knows.
        expected: usize,
    },
    /// The schedule needs more microbatches.
    Microbatches {
        /// The fewest that will do.
        least: usize,
    },
    /// The microbatches do not fall into groups.
    Groups {
        /// Microbatches of a group.
        group: usize,
        /// Numbers of microbatches close by that would do.
        microbatches: Vec<usize>,
        /// Group sizes that would do for the number asked for.
        groups: Vec<usize>,
    },
    /// Pairs without an extra forward pass in the warm-up: the last stage would pair a forward
    /// pass with the backward pass that needs it.
    Pairs {
        /// Chunk of the last stage's first pair.
        chunk: usize,
    },
    /// Written orders are for another pipeline.
    Shape {
        /// The pipeline they are for; chunks of the stage that has most of them.
        expected: Pipeline,
        /// Whether all stages have that many.
        even: bool,
    },
    /// Written orders hang.
    Hang(Hang),
}

impl Schedule {
    /// Every rule that makes orders, those with parameters as they are by default.
    pub const ALL: &[Schedule] = &[
        Schedule::GPipe,
        Schedule::OneFOneB,
        Schedule::Interleaved1F1B(Interleaved::PLAIN),
        Schedule::LoopedBfs,
        Schedule::ZbH1,
        Schedule::ZbH2,
        Schedule::InterleavedZeroBubble,
        Schedule::ZbV,
        Schedule::DualPipeV,
        Schedule::VHalf,
        Schedule::VMin,
        Schedule::Hybrid(Hybrid::PLAIN),
        Schedule::Automatic(Automatic::PLAIN),
    ];

    /// The name job files write.
    pub fn name(&self) -> &'static str {
        match self {
            Schedule::GPipe => "GPipe",
            Schedule::OneFOneB => "OneFOneB",
            Schedule::Interleaved1F1B(_) => "Interleaved1F1B",
            Schedule::LoopedBfs => "LoopedBfs",
            Schedule::ZbH1 => "ZbH1",
            Schedule::ZbH2 => "ZbH2",
            Schedule::InterleavedZeroBubble => "InterleavedZeroBubble",
            Schedule::ZbV => "ZbV",
            Schedule::DualPipeV => "DualPipeV",
            Schedule::VHalf => "VHalf",
            Schedule::VMin => "VMin",
            Schedule::Hybrid(_) => "Hybrid",
            Schedule::Automatic(_) => "Automatic",
            Schedule::Orders(_) => "Orders",
        }
    }

    /// The stage of each chunk, of a pipeline that [fits](Schedule::fits).
    pub fn places(&self, pipeline: Pipeline) -> Vec<usize> {
        let placement = match self {
            Schedule::Orders(written) => return written.bare().places().to_vec(),
            Schedule::ZbV | Schedule::DualPipeV => Placement::V,
            Schedule::VHalf | Schedule::VMin => Placement::V,
            _ => Placement::Loop,
        };
        let chunks = 0..pipeline.stages * pipeline.virtual_stages;
        chunks.map(|chunk| placement.stage_of(chunk, pipeline.stages)).collect()
    }

    /// The only number of chunks a stage that the schedule knows, if there is one.
    pub fn virtual_stages(&self) -> Option<usize> {
        match self {
            Schedule::GPipe | Schedule::OneFOneB | Schedule::ZbH1 | Schedule::ZbH2 => Some(1),
            Schedule::Automatic(_) => Some(1),
            Schedule::ZbV | Schedule::DualPipeV => Some(2),
            Schedule::VHalf | Schedule::VMin => Some(2),
            Schedule::Interleaved1F1B(_) | Schedule::Hybrid(_) => None,
            Schedule::Orders(written) => Some(written.pipeline().virtual_stages),
            Schedule::LoopedBfs | Schedule::InterleavedZeroBubble => None,
        }
    }

    /// Says whether the schedule knows such a pipeline.
    ///
    /// # Errors
    ///
    /// [`Unfit`], with what would do instead.
    pub fn fits(&self, pipeline: Pipeline) -> Result<(), Unfit> {
        if let Schedule::Orders(written) = self {
            return written.fits(pipeline);
        }
        let known = self.virtual_stages();
        if let Some(expected) = known.filter(|&known| known != pipeline.virtual_stages) {
            return Err(Unfit::VirtualStages { expected });
        }
        let least = 2 * pipeline.stages;
        match self {
            Schedule::Interleaved1F1B(rule) => rule.fits(pipeline),
            Schedule::Hybrid(rule) => rule.fits(pipeline),
            Schedule::InterleavedZeroBubble => interleaved_zero_bubble::fits(pipeline),
            Schedule::DualPipeV if pipeline.microbatches < least => {
                Err(Unfit::Microbatches { least })
            }
            _ => Ok(()),
        }
    }

    /// The actions of all stages as the cells of a file, pairs being one cell, of a pipeline that
    /// [fits](Schedule::fits).
    pub fn steps(&self, pipeline: Pipeline) -> Vec<Vec<Step>> {
        match self {
            Schedule::VHalf => works(Block::Half.orders(pipeline)),
            Schedule::VMin => works(Block::Min.orders(pipeline)),
            Schedule::Automatic(rule) => works(rule.orders(pipeline)),
            Schedule::Orders(written) => written.steps(),
            _ => (0..pipeline.stages).map(|stage| self.row(pipeline, stage)).collect(),
        }
    }

    /// The actions of all stages, in order, of a pipeline that [fits](Schedule::fits).
    pub fn orders(&self, pipeline: Pipeline) -> Vec<Vec<Action>> {
        let actions = |row: &Vec<Step>| row.iter().flat_map(Step::actions).collect();
        self.steps(pipeline).iter().map(actions).collect()
    }

    /// The cells of one stage, where each stage's are a rule of its own.
    fn row(&self, pipeline: Pipeline, stage: usize) -> Vec<Step> {
        let order = match self {
            Schedule::GPipe => gpipe::order(pipeline, stage),
            Schedule::OneFOneB => one_f_one_b::order(pipeline, stage),
            Schedule::Interleaved1F1B(rule) => return rule.steps(pipeline, stage),
            Schedule::LoopedBfs => looped_bfs::order(pipeline, stage),
            Schedule::ZbH1 => zb_h1::order(pipeline, stage),
            Schedule::ZbH2 => zb_h2::order(pipeline, stage),
            Schedule::InterleavedZeroBubble => interleaved_zero_bubble::order(pipeline, stage),
            Schedule::ZbV => zb_v::order(pipeline, stage),
            Schedule::DualPipeV => return dual_pipe_v::steps(pipeline, stage),
            Schedule::Hybrid(rule) => return rule.steps(pipeline, stage),
            Schedule::VHalf | Schedule::VMin | Schedule::Automatic(_) | Schedule::Orders(_) => {
                return self.steps(pipeline).swap_remove(stage);
            }
        };
        order.into_iter().map(Step::Work).collect()
    }
}

/// Actions as cells of their own.
fn works(orders: Vec<Vec<Action>>) -> Vec<Vec<Step>> {
    orders.into_iter().map(|order| order.into_iter().map(Step::Work).collect()).collect()
}

/// One kind of work of a stage's only chunk, for all microbatches.
fn microbatches(pipeline: Pipeline, stage: usize, work: Work) -> Vec<Action> {
    let action = |microbatch| Action { chunk: stage, work, microbatch };
    (0..pipeline.microbatches).map(action).collect()
}

/// `warm_up` forward passes, then one forward and one backward as a pair, then what is left.
fn pairs(warm_up: usize, forward: Vec<Action>, backward: Vec<Action>) -> Vec<Step> {
    let mut backward = backward.into_iter();
    let mut steps = Vec::with_capacity(2 * forward.len());
    for (position, forward) in forward.into_iter().enumerate() {
        let partner = if position < warm_up { None } else { backward.next() };
        steps.push(partner.map_or(Step::Work(forward), |it| Step::Pair(forward, it)));
    }
    steps.extend(backward.map(Step::Work));
    steps
}

/// The same, one after the other.
fn alternate(warm_up: usize, forward: Vec<Action>, backward: Vec<Action>) -> Vec<Action> {
    pairs(warm_up, forward, backward).iter().flat_map(Step::actions).collect()
}

#[cfg(test)]
mod closed_forms;
#[cfg(test)]
pub(crate) mod tests;
