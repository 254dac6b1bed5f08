//! What each actor holds, does and is connected to.
//!
//! Every rank lowers the same job to the same plan; a plan is never sent. All replicas and expert
//! ranks of a stage run the same program and differ only in their peers, so a plan holds one
//! program per (stage, side), however many ranks there are.

use std::ops::Range;

use ops::Op;
use serde::{Deserialize, Serialize};

use crate::{
    action::Action,
    mesh::Mesh,
    model::NodeId,
    policy::Policies,
    spec::{Communicators, Zero},
};

/// Everything the runtime needs to know, and nothing it has to decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Ranks along the axes.
    pub mesh: Mesh,
    /// How a batch is cut.
    pub batch: Batch,
    /// Pieces of the model, in model order; `pp * vpp` of them.
    pub chunks: Vec<Chunk>,
    /// Compute order of each stage after the order-level passes, for pictures and checks.
    pub orders: Vec<Vec<Action>>,
    /// All channels; a [`ChannelId`] is an index in here.
    pub channels: Vec<Channel>,
    /// Which channels share a communicator, for the proof alone: actors of one process need none.
    pub communicators: Communicators,
    /// What is done with activations between the passes.
    pub policies: Policies,
    /// Who keeps masters and optimizer states; see [`crate::share`].
    pub zero: Zero,
    /// Part of the masters and optimizer states of each actor that lives on the host, 0 to 1.
    pub offload_states: f64,
    /// Whether weight gradients leave for the holders of their slices as soon as they are complete
    /// ([`Instruction::Reduce`]), and not when the program is done.
    pub reduces_early: bool,
    /// Two programs for each stage: `programs[stage][side as usize]`.
    ///
    /// The program of the experts' side is empty if no chunk of the stage visits experts.
    pub programs: Vec<[Program; 2]>,
}

impl Plan {
    /// All instructions with their numbers: stage by stage, the stage's side first, in order.
    ///
    /// A number names an instruction in simulations, traces and pictures.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, usize, Side, Instruction)> {
        let stages = self.programs.iter().enumerate();
        let actors = stages.flat_map(|(stage, programs)| {
            [Side::Stage, Side::Experts].map(|side| (stage, side, &programs[side as usize]))
        });
        let all = actors.flat_map(|(stage, side, program)| {
            program.instructions.iter().map(move |&instruction| (stage, side, instruction))
        });
        all.enumerate().map(|(number, (stage, side, it))| (number, stage, side, it))
    }
}

impl Plan {
    /// Whether a chunk hands its output to the next in memory, both being on one stage.
    ///
    /// # Panics
    ///
    /// If there is no next chunk.
    pub fn is_local(&self, chunk: usize) -> bool {
        self.chunks[chunk].stage == self.chunks[chunk + 1].stage
    }

    /// Number of the first instruction of an actor, as [`Plan::numbered`] counts.
    pub fn first_number(&self, stage: usize, side: Side) -> usize {
        let before = self.programs.iter().flatten().take(2 * stage + side as usize);
        before.map(|program| program.instructions.len()).sum()
    }
}

/// How the sequences of a step are cut into microbatches and lanes.
///
/// A step has `sequences` sequences of `context` tokens. Unit `u` is the `u`-th group of
/// `microbatch` sequences. Unit `u` belongs to lane `u % lanes`; lane `j` is computed by data rank
/// `j / (lanes / ranks)`, where the `ranks = dp * ep` data ranks are counted replica-major
/// (`replica * ep + expert rank`). A rank works through its units in rising order; the position
/// in that row is what orders and programs call a microbatch. Gradients are summed per lane in
/// rising order of units, and the lanes are added from the first to the last, so every `dp * ep`
/// that divides `lanes` gives the same bits.
///
/// Without `lanes`, units are spread as if there were as many as data ranks, but each holder of a
/// parameter has one sum: an expert group adds what it computes for the ranks of its replica,
/// rank after rank in every unit. That is the least memory, and the bits depend on `dp` and `ep`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Sequences of one step, over all ranks.
    pub sequences: usize,
    /// Tokens of one sequence.
    pub context: usize,
    /// Sequences of one unit.
    pub microbatch: usize,
    /// Fixed lanes in which gradients are summed, a multiple of `dp * ep`; or one for each holder.
    pub lanes: Option<usize>,
}

impl Batch {
    /// Units of a step over all ranks.
    pub fn units(&self) -> usize {
        self.sequences / self.microbatch
    }

    /// Microbatches that each of `ranks` data ranks works through in a step.
    pub fn microbatches(&self, ranks: usize) -> usize {
        self.units() / ranks
    }

    /// The unit that data rank `rank` of `ranks` computes as its microbatch `microbatch`.
    pub fn unit(&self, ranks: usize, rank: usize, microbatch: usize) -> usize {
        let own = self.own_lanes(ranks);
        (microbatch / own) * ranks * own + rank * own + microbatch % own
    }

    /// Lanes whose units each of `ranks` data ranks computes.
    pub fn own_lanes(&self, ranks: usize) -> usize {
        self.lanes.map_or(1, |lanes| lanes / ranks)
    }

    /// Tokens of one step.
    pub fn tokens(&self) -> usize {
        self.sequences * self.context
    }
}

/// A piece of the model that one stage computes without hearing from another stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Stage that holds it.
    pub stage: usize,
    /// Nodes of the model in it, all sides.
    pub nodes: Range<NodeId>,
    /// What the stage actor computes, cut where rows visit the experts: one more than `visits`.
    pub segments: Vec<Vec<NodeId>>,
    /// What the expert groups compute between one segment and the next.
    pub visits: Vec<Visit>,
    /// By side: the segments, or visits, whose backward pass needs something restored.
    pub restored: [Vec<bool>; 2],
}

impl Chunk {
    /// Whether the backward pass of a segment, or visit, needs something restored.
    pub fn restores(&self, side: Side, segment: usize) -> bool {
        self.restored[side as usize].get(segment).copied().unwrap_or(false)
    }
}

/// Nodes that live on the expert groups, between two segments of a chunk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Visit {
    /// Nodes in execution order; grouped operators know only the group's own experts.
    pub nodes: Vec<(NodeId, Op)>,
    /// Experts of the layer over all groups.
    pub experts: usize,
    /// Output ports that cross to the groups: rows sorted by expert first, then counts per expert.
    pub inputs: Vec<(NodeId, usize)>,
    /// Output ports that cross back: rows in the same order.
    pub outputs: Vec<(NodeId, usize)>,
}

/// The two kinds of compute actors of a rank.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Side {
    /// Attention, router, shared experts, norms: everything for the rank's own tokens.
    Stage = 0,
    /// The routed experts that live on the rank.
    Experts = 1,
}

/// Index of a channel in [`Plan::channels`].
pub type ChannelId = usize;

/// A route between two programs, instantiated for every rank that runs them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Channel {
    /// Stage and side that sends.
    pub from: (usize, Side),
    /// Stage and side that receives.
    pub to: (usize, Side),
    /// What crosses.
    pub cargo: Cargo,
    /// Buffers of each sender-receiver pair: the consumer of token `n` releases token
    /// `n + credits`. Tokens are counted in the order of the sender's program.
    pub credits: usize,
}

/// What a channel carries, for one microbatch at a time.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Cargo {
    /// Output of `chunk`, to the stage of the next chunk; same replica, same expert rank.
    Activations {
        /// Sending chunk.
        chunk: usize,
    },
    /// Gradient of the input of `chunk`, to the stage of the chunk before it.
    Gradients {
        /// Sending chunk.
        chunk: usize,
    },
    /// Rows to the experts: every rank of `ep` to every group.
    Dispatch {
        /// Chunk the visit belongs to.
        chunk: usize,
        /// Visit within the chunk.
        visit: usize,
    },
    /// Rows back from the experts.
    Combine {
        /// Chunk the visit belongs to.
        chunk: usize,
        /// Visit within the chunk.
        visit: usize,
    },
    /// Gradients of the rows that came back, to the experts.
    CombineGradients {
        /// Chunk the visit belongs to.
        chunk: usize,
        /// Visit within the chunk.
        visit: usize,
    },
    /// Gradients of the rows that went out, from the experts.
    DispatchGradients {
        /// Chunk the visit belongs to.
        chunk: usize,
        /// Visit within the chunk.
        visit: usize,
    },
}

impl Cargo {
    /// Whether each rank exchanges with every expert rank of its replica, and not with one peer.
    pub fn fans_out(self) -> bool {
        !matches!(self, Cargo::Activations { .. } | Cargo::Gradients { .. })
    }
}

/// What one kind of actor does in a step, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Instructions of one step; the optimizer phase follows the last one.
    pub instructions: Vec<Instruction>,
}

/// One thing an actor does; the next starts when it is done.
///
/// On the experts' side the three computations run once for each source rank, in rank order, and
/// `segment` counts visits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Instruction {
    /// Waits for the token of a microbatch, from every peer, and returns the credit when the
    /// tensors have been used.
    Receive {
        /// Channel it comes through.
        channel: ChannelId,
        /// Microbatch it belongs to.
        microbatch: usize,
    },
    /// Waits for a credit of every peer, then sends.
    Send {
        /// Channel it leaves through.
        channel: ChannelId,
        /// Microbatch it belongs to.
        microbatch: usize,
    },
    /// Computes the nodes of a segment.
    Forward {
        /// Chunk of the segment.
        chunk: usize,
        /// Segment of the chunk, or visit on the experts' side.
        segment: usize,
        /// Microbatch.
        microbatch: usize,
    },
    /// Makes what the backward pass of a segment reads as it was: decodes what is stored in FP8,
    /// and runs nodes again whose outputs were dropped.
    Restore {
        /// Chunk of the segment.
        chunk: usize,
        /// Segment of the chunk, or visit on the experts' side.
        segment: usize,
        /// Microbatch.
        microbatch: usize,
    },
    /// A step of what is kept of a chunk on its way to the host and back.
    Copy {
        /// Which one.
        step: CopyStep,
        /// Chunk.
        chunk: usize,
        /// On the experts' side the visit, whose flights are apart; or else 0.
        segment: usize,
        /// Microbatch.
        microbatch: usize,
    },
    /// Computes the input gradients of the nodes of a segment, last node first.
    BackwardInput {
        /// Chunk of the segment.
        chunk: usize,
        /// Segment of the chunk, or visit on the experts' side.
        segment: usize,
        /// Microbatch.
        microbatch: usize,
    },
    /// Computes the weight gradients of the nodes of a segment, last node first.
    BackwardWeight {
        /// Chunk of the segment.
        chunk: usize,
        /// Segment of the chunk, or visit on the experts' side.
        segment: usize,
        /// Microbatch.
        microbatch: usize,
    },
    /// Lets go of the weight gradients of a segment, which are complete; they are on their way to
    /// the holders of their slices from now on, beside the program.
    Reduce {
        /// Chunk of the segment.
        chunk: usize,
        /// Segment of the chunk, or visit on the experts' side.
        segment: usize,
    },
}

/// A step of activations on their way to the host and back; the copies themselves run on the copy
/// lane, beside the program.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum CopyStep {
    /// Copies to the host begin.
    Offload,
    /// Waits for them, and gives the device's memory back.
    Offloaded,
    /// Copies back begin; the device's memory is taken.
    Fetch,
    /// Waits for them.
    Fetched,
}

impl CopyStep {
    /// All of them, in order.
    pub const ALL: [CopyStep; 4] =
        [CopyStep::Offload, CopyStep::Offloaded, CopyStep::Fetch, CopyStep::Fetched];
}
