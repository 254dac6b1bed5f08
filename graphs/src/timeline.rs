//! What each rank does when, over one step: what the simulator makes, a traced run records, and
//! pictures draw.
//!
//! One rank stands for all replicas and expert ranks of its stage. Times count from the begin of
//! the step, in seconds, or in units where prices have none.

use std::collections::BTreeMap;

/// A step, span by span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// The spans of each rank, by lane and start.
    pub ranks: Vec<Vec<Span>>,
}

impl Timeline {
    /// From the begin of the step to the last end.
    pub fn makespan(&self) -> f64 {
        self.ranks.iter().flatten().map(|span| span.end).fold(0.0, f64::max)
    }
}

impl Timeline {
    /// How long a lane of a rank does nothing until the step ends, by cause.
    ///
    /// What is left after its last span is [`Cause::CoolDown`]. Spans of a lane must not overlap.
    ///
    /// # Panics
    ///
    /// If there is no such rank.
    pub fn idle(&self, rank: usize, lane: Lane) -> BTreeMap<Cause, f64> {
        let mut idle = BTreeMap::new();
        let mut end = 0.0;
        for span in self.ranks[rank].iter().filter(|span| span.lane == lane) {
            end = f64::max(end, span.end);
            if let Some(wait) = span.wait {
                *idle.entry(wait.cause).or_default() += span.start - wait.since;
            }
        }
        let rest = self.makespan() - end;
        if rest > 0.0 {
            *idle.entry(Cause::CoolDown).or_default() += rest;
        }
        idle
    }
}

/// What a rank does beside its other lanes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Computation.
    Compute,
    /// Messages between ranks.
    Communication,
    /// Copies between the device and its host.
    Copy,
}

/// One thing that a lane does from start to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Number of the instruction in its plan ([`crate::Plan::numbered`]), or of the cell in bare
    /// orders, row by row; the same in every run of a plan.
    pub id: usize,
    /// Where it runs.
    pub lane: Lane,
    /// What it is.
    pub task: Task,
    /// When it begins.
    pub start: f64,
    /// When it is done.
    pub end: f64,
    /// Why it did not begin as soon as its lane was free.
    pub wait: Option<Wait>,
}

/// The idle time of a lane before a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wait {
    /// When the lane was free.
    pub since: f64,
    /// What was missing.
    pub cause: Cause,
    /// The span that it waited for: rank and id.
    pub on: Option<(usize, usize)>,
}

/// What a lane waits for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Cause {
    /// First work of the step: the pipeline fills.
    WarmUp,
    /// Work of another rank that is not done.
    Data,
    /// A message that is under way.
    Transfer,
    /// A link that carries something else.
    Link,
    /// A free buffer at the receiver.
    Credit,
    /// The host's link, which carries something else.
    HostLink,
    /// Processor cores that others use.
    Core,
    /// No work is left: the pipeline drains.
    CoolDown,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 8] = [
        Cause::WarmUp,
        Cause::Data,
        Cause::Transfer,
        Cause::Link,
        Cause::Credit,
        Cause::HostLink,
        Cause::Core,
        Cause::CoolDown,
    ];
}

/// What a span does.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Task {
    /// Kind of the work.
    pub kind: Kind,
    /// Chunk of the model; of a message, the chunk that makes it.
    pub chunk: usize,
    /// Segment or visit of the chunk.
    pub segment: usize,
    /// Microbatch.
    pub microbatch: usize,
}

/// Kinds of work.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Forward pass.
    Forward,
    /// Gradient of the input.
    BackwardInput,
    /// Gradient of the weights.
    BackwardWeight,
    /// Both gradients.
    Backward,
    /// A forward pass done again.
    Recompute,
    /// Forward pass of routed experts.
    ExpertForward,
    /// Gradient of the rows of routed experts.
    ExpertBackwardInput,
    /// Gradient of the weights of routed experts.
    ExpertBackwardWeight,
    /// Activations to the next stage.
    Activations,
    /// Gradients to the stage before.
    Gradients,
    /// Rows to the experts.
    Dispatch,
    /// Rows back from the experts.
    Combine,
    /// Gradients of the rows that came back.
    CombineGradients,
    /// Gradients of the rows that went out.
    DispatchGradients,
    /// Activations to the host.
    Offload,
    /// Activations back from the host.
    Fetch,
    /// Sum of the gradients over ranks.
    Reduce,
    /// The optimizer's update.
    Optimizer,
    /// New weights to all who hold them.
    Gather,
}
