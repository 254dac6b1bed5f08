//! Why a plan cannot be made, in the words of the person who asked for it.

use crate::{
    check::{Deadlock, Hang, OrderError, ProgramError},
    policy::{Recompute, Stored, TILE},
    schedule::{Pipeline, Schedule, Unfit},
};

/// One reason why a job's plan cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// An axis of the mesh, or a count, is zero or beyond any machine.
    #[error("`{field}` is {got}; expected 1 to {limit}")]
    Degree {
        /// Field of the job.
        field: &'static str,
        /// Its value.
        got: usize,
        /// The largest sensible value.
        limit: usize,
    },
    /// More chunks than the model can be cut into.
    #[error("pp * vpp = {wanted} chunks, but the model can be cut into at most {most}")]
    TooFewCuts {
        /// Chunks asked for.
        wanted: usize,
        /// Chunks that one more than the cut points make.
        most: usize,
    },
    /// The schedule knows only so many chunks a stage.
    #[error("{schedule} needs vpp = {expected}, got vpp = {vpp}")]
    VirtualStages {
        /// Name of the schedule.
        schedule: &'static str,
        /// Chunks of a stage that it knows.
        expected: usize,
        /// Chunks of a stage asked for.
        vpp: usize,
    },
    /// The schedule needs more microbatches.
    #[error("{schedule} needs at least {least} microbatches, got {microbatches}")]
    Microbatches {
        /// Name of the schedule.
        schedule: &'static str,
        /// The fewest that will do.
        least: usize,
        /// Microbatches of a rank and step.
        microbatches: usize,
    },
    /// The microbatches do not fall into the groups of interleaved 1F1B.
    #[error("{microbatches} microbatches do not fall into groups of {group} over {pp} stages")]
    Groups {
        /// Microbatches of a rank and step.
        microbatches: usize,
        /// Microbatches of a group.
        group: usize,
        /// Stages.
        pp: usize,
        /// Numbers of microbatches close by that would do.
        nearest: Vec<usize>,
        /// Group sizes that would do.
        groups: Vec<usize>,
    },
    /// Pairs without an extra forward pass in the warm-up.
    #[error(
        "pairs need extra_warmup: 1 or more, got 0: the last stage's first pair would be \
         ({chunk}F0;{chunk}B0), a forward pass beside the backward pass that waits for its output"
    )]
    Pairs {
        /// Chunk of that pair.
        chunk: usize,
    },
    /// Written orders are for another pipeline.
    #[error(
        "the orders are for pp = {}, vpp = {}{}, {} microbatches; got pp = {}, vpp = {}, {} \
         microbatches",
        expected.stages, expected.virtual_stages, if *even { "" } else { " at most" },
        expected.microbatches, got.stages, got.virtual_stages, got.microbatches
    )]
    Shape {
        /// The pipeline they are for.
        expected: Pipeline,
        /// Whether all its stages have as many chunks.
        even: bool,
        /// The pipeline of the plan; microbatches of a rank and step.
        got: Pipeline,
    },
    /// Written orders hang.
    #[error("{0}")]
    Hang(Hang),
    /// A layer's experts cannot be spread evenly.
    #[error("{experts} experts do not divide over ep = {ep}")]
    Experts {
        /// Experts of a layer.
        experts: usize,
        /// Expert ranks.
        ep: usize,
    },
    /// The batch cannot be spread evenly over the data ranks.
    #[error(
        "{sequences} sequences do not divide over microbatch * dp * ep = {microbatch} * {dp} * {ep}"
    )]
    Sequences {
        /// Sequences of a step.
        sequences: usize,
        /// Sequences of a unit.
        microbatch: usize,
        /// Replicas.
        dp: usize,
        /// Expert ranks.
        ep: usize,
    },
    /// The lanes cannot be spread evenly over the data ranks.
    #[error("{lanes} lanes do not divide over dp * ep = {ranks}")]
    Lanes {
        /// Lanes asked for.
        lanes: usize,
        /// Data ranks.
        ranks: usize,
    },
    /// The units of a step do not fill the lanes.
    #[error("{sequences} sequences in units of {microbatch} do not fill {lanes} lanes evenly")]
    Units {
        /// Sequences of a step.
        sequences: usize,
        /// Sequences of a unit.
        microbatch: usize,
        /// Lanes.
        lanes: usize,
    },
    /// An explicit cut has too few or too many entries.
    #[error("`stages` has {got} entries for pp * vpp = {expected} chunks")]
    Shares {
        /// Entries written.
        got: usize,
        /// Chunks of the mesh.
        expected: usize,
    },
    /// An explicit cut does not hold the model once, in order.
    #[error("`stages` {0}")]
    Explicit(String),
    /// An explicit cut goes through a place where more than one tensor crosses.
    #[error("the model cannot be cut before `{node}`: {tensors} tensors cross there, not one")]
    Cut {
        /// First node after the cut.
        node: String,
        /// Tensors that cross.
        tensors: usize,
    },
    /// A step would be longer than a plan should be.
    #[error("a step of {microbatches} microbatches in {chunks} chunks is too long to plan")]
    TooLong {
        /// Microbatches of a rank.
        microbatches: usize,
        /// Chunks of the model.
        chunks: usize,
    },
    /// An order breaks the law.
    #[error("{0}")]
    Order(#[from] OrderError),
    /// A program breaks the law.
    #[error("{0}")]
    Program(#[from] ProgramError),
    /// Channels without a buffer, which actors cannot run.
    #[error("`plan.credits` is Fixed(0), but a send puts its message into a buffer")]
    NoCredits,
    /// A tile that FP8 storage does not know.
    #[error("the tiles of FP8 storage are {} x {}, got {} x {}", TILE.0, TILE.1, got.0, got.1)]
    Tile {
        /// Rows and columns asked for.
        got: (usize, usize),
    },
    /// Tensors that are to be computed again, and to be stored too.
    #[error(
        "{stored:?} is stored, but {recompute:?} computes it again, so nothing is left to store"
    )]
    Twice {
        /// What is stored.
        stored: Stored,
        /// What computes it again.
        recompute: Recompute,
    },
    /// A part that is none.
    #[error("`offload_states` is {got}; expected a part from 0 to 1")]
    Part {
        /// What was asked for.
        got: f64,
    },
    /// The plan would hang.
    #[error("{0}")]
    Deadlock(#[from] Deadlock),
}

impl PlanError {
    /// Why a schedule does not know a pipeline.
    pub fn unfit(schedule: &Schedule, pipeline: Pipeline, unfit: Unfit) -> Self {
        let schedule = schedule.name();
        let Pipeline { stages: pp, virtual_stages: vpp, microbatches } = pipeline;
        match unfit {
            Unfit::VirtualStages { expected } => {
                PlanError::VirtualStages { schedule, expected, vpp }
            }
            Unfit::Microbatches { least } => {
                PlanError::Microbatches { schedule, least, microbatches }
            }
            Unfit::Groups { group, microbatches: nearest, groups } => {
                PlanError::Groups { microbatches, group, pp, nearest, groups }
            }
            Unfit::Pairs { chunk } => PlanError::Pairs { chunk },
            Unfit::Shape { expected, even } => PlanError::Shape { expected, even, got: pipeline },
            Unfit::Hang(hang) => PlanError::Hang(hang),
        }
    }

    /// Stable code, for `explain` and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            PlanError::Degree { .. } => "P100",
            PlanError::TooFewCuts { .. } => "P101",
            PlanError::VirtualStages { .. } => "P102",
            PlanError::Groups { .. } => "P103",
            PlanError::Experts { .. } => "P104",
            PlanError::Sequences { .. } => "P105",
            PlanError::Lanes { .. } => "P106",
            PlanError::Units { .. } => "P107",
            PlanError::Shares { .. } => "P108",
            PlanError::Explicit(_) => "P109",
            PlanError::Cut { .. } => "P110",
            PlanError::TooLong { .. } => "P111",
            PlanError::Microbatches { .. } => "P112",
            PlanError::Pairs { .. } => "P113",
            PlanError::Shape { .. } => "P114",
            PlanError::Hang(_) => "P115",
            PlanError::Order(_) => "P120",
            PlanError::Program(_) => "P121",
            PlanError::Deadlock(_) => "P122",
            PlanError::NoCredits => "P123",
            PlanError::Tile { .. } => "P124",
            PlanError::Twice { .. } => "P125",
            PlanError::Part { .. } => "P126",
        }
    }

    /// Field of the job that it is about; `batch` and `lanes` are fields of the learner.
    pub fn path(&self) -> &'static str {
        match self {
            PlanError::Degree { field, .. } => field,
            PlanError::TooFewCuts { .. } => "plan.mesh.pp",
            PlanError::VirtualStages { .. } => "plan.mesh.vpp",
            PlanError::Experts { .. } => "plan.mesh.ep",
            PlanError::Sequences { .. } | PlanError::Units { .. } => "batch",
            PlanError::Groups { .. } | PlanError::TooLong { .. } => "batch",
            PlanError::Microbatches { .. } => "batch",
            PlanError::Lanes { .. } => "lanes",
            PlanError::Pairs { .. } | PlanError::Shape { .. } | PlanError::Hang(_) => {
                "plan.schedule"
            }
            PlanError::Shares { .. } | PlanError::Explicit(_) => "plan.stages",
            PlanError::Cut { .. } => "plan.stages",
            PlanError::NoCredits => "plan.credits",
            PlanError::Tile { .. } | PlanError::Twice { .. } => "plan.store",
            PlanError::Part { .. } => "plan.offload_states",
            PlanError::Deadlock(ring) if ring.credit.is_some() => "plan.credits",
            PlanError::Deadlock(ring) if ring.shares => "plan.communicators",
            PlanError::Order(_) | PlanError::Program(_) | PlanError::Deadlock(_) => "plan.schedule",
        }
    }

    /// What would do instead.
    pub fn help(&self) -> Option<String> {
        match *self {
            PlanError::TooFewCuts { most, .. } => {
                Some(format!("pp * vpp may be up to {most}; half layers are counted already"))
            }
            PlanError::VirtualStages { expected: 1, .. } => {
                Some("take Interleaved1F1B, or vpp: 1".to_string())
            }
            PlanError::VirtualStages { expected, .. } => Some(format!("write vpp: {expected}")),
            PlanError::Groups { ref nearest, ref groups, .. } if groups.is_empty() => {
                Some(format!("microbatches that would do: {}", list(nearest)))
            }
            PlanError::Groups { ref nearest, ref groups, .. } => {
                let (nearest, groups) = (list(nearest), list(groups));
                Some(format!("microbatches that would do: {nearest}; groups that would: {groups}"))
            }
            PlanError::Pairs { .. } => Some("write extra_warmup: 1".to_string()),
            PlanError::Shape { even: false, .. } => {
                Some("every row needs as many chunks as the others".to_string())
            }
            PlanError::Experts { experts, ep } => {
                let degrees = near(ep, |degree| experts.is_multiple_of(degree));
                Some(format!("nearest degrees that divide: {}", list(&degrees)))
            }
            PlanError::Sequences { sequences, microbatch, dp, ep } => {
                let unit = microbatch.saturating_mul(dp).saturating_mul(ep);
                let counts = near(sequences, |count| count.is_multiple_of(unit));
                Some(format!("nearest batches that divide: {} sequences", list(&counts)))
            }
            PlanError::Lanes { lanes, ranks } => {
                let counts = near(lanes, |count| count.is_multiple_of(ranks));
                Some(format!("nearest numbers of lanes that divide: {}", list(&counts)))
            }
            PlanError::Units { sequences, microbatch, lanes } => {
                let unit = microbatch.saturating_mul(lanes);
                let counts = near(sequences, |count| count.is_multiple_of(unit));
                Some(format!("nearest batches that do: {} sequences", list(&counts)))
            }
            PlanError::NoCredits => Some(
                "write Fixed(1) or more; whether bare orders run without buffers is told by \
                 `troupe schedule --check orders.csv --credits 0`"
                    .to_string(),
            ),
            PlanError::Tile { .. } => Some(format!("write tile: ({}, {})", TILE.0, TILE.1)),
            PlanError::Twice { stored, recompute } => {
                Some(format!("leave {stored:?} out of `store`, or {recompute:?} of `recompute`"))
            }
            PlanError::Cut { .. } => Some("cut between layers, or take Balanced".to_string()),
            _ => None,
        }
    }
}

/// The nearest numbers below and above that are right, looking no further than twice as far.
fn near(got: usize, right: impl Fn(usize) -> bool) -> Vec<usize> {
    let below = (1..got).rev().take(1 << 20).find(|&number| right(number));
    let above = (got + 1..).take(1 << 20).find(|&number| right(number));
    below.into_iter().chain(above).collect()
}

fn list(numbers: &[usize]) -> String {
    match numbers {
        [] => "none near".to_string(),
        numbers => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    }
}
