//! What a plan costs on a cluster: seconds of every segment, message and update.
//!
//! An operator takes `launch + max(flops / rate, bytes / bandwidth)`, where the rate of a matrix
//! product is the part of the peak that the cluster says products achieve. A [`Profile`] replaces
//! this by what was measured. Loads of experts are taken as balanced.

use std::collections::BTreeMap;

use ops::{DType, Op, Rule, WeightSpec};

use crate::{
    cluster::{Cluster, Device},
    flight::{Keeping, keepings},
    model::ModelGraph,
    plan::{Plan, Side, Visit},
    share::{Exchange, exchanged},
};

mod copies;
mod model;
mod phase;
mod profile;
mod ways;
mod work;

pub use self::{
    model::flops_of_step,
    phase::{Phase, muon_flops},
    profile::{Profile, Sample, Update},
    ways::Way,
    work::Parts,
};

/// The price of everything that a plan does in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// Seconds of each segment of each chunk, on the stage's side.
    pub segments: Vec<Vec<Parts>>,
    /// Seconds of each visit of each chunk, on the experts' side, over all source ranks.
    pub visits: Vec<Vec<Parts>>,
    /// Seconds of a copy of what each home of flights keeps to the host, or back: by chunk, side
    /// and, on the experts' side, visit.
    pub copies: Vec<[Vec<f64>; 2]>,
    /// What a message through each channel costs.
    pub ways: Vec<Way>,
    /// What the gradients of each segment of each chunk cost on their way, by side; nothing if they
    /// go together, in the optimizer phase.
    pub reductions: Vec<[Vec<Way>; 2]>,
    /// The optimizer phase of each stage and side.
    pub phases: Vec<[Phase; 2]>,
    /// Cores that all ranks share; nothing if each rank has a device of its own.
    pub cores: Option<usize>,
    /// Floating-point operations of the model in one step, over all ranks; [`flops_of_step`].
    pub model_flops: f64,
    /// Floating-point operations a second of all devices together, at the peak.
    pub peak: f64,
}

impl Prices {
    /// Prices a plan whose activations and computing weights have the given format.
    ///
    /// A GPU takes the rows of all source ranks of a visit as one product; a machine without GPUs
    /// computes them one source after the other, as the runtime does there.
    pub fn new(
        graph: &ModelGraph,
        plan: &Plan,
        cluster: &Cluster,
        dtype: DType,
        profile: Option<&Profile>,
    ) -> Self {
        let sources = match cluster {
            Cluster::Gpus(_) => 1,
            Cluster::Machine(_) => plan.mesh.ep,
        };
        let device = cluster.device();
        let by_muon = |spec: &WeightSpec| spec.rule == Rule::Muon && spec.shape.len() == 2;
        let exchanged = exchanged(plan, graph, dtype, by_muon);
        let all = |side| (0..plan.mesh.pp).flat_map(move |it| keepings(plan, graph, it, side));
        let keepings = [Side::Stage, Side::Experts].map(|side| all(side).collect());
        let pricing =
            Pricing { graph, plan, cluster, device, dtype, profile, sources, exchanged, keepings };
        let cores = match cluster {
            Cluster::Gpus(_) => None,
            Cluster::Machine(machine) => (!machine.apart).then_some(machine.cores),
        };
        let devices = cores.unwrap_or(plan.mesh.ranks());
        Prices {
            segments: (0..plan.chunks.len()).map(|chunk| pricing.segments(chunk)).collect(),
            visits: (0..plan.chunks.len()).map(|chunk| pricing.visits(chunk)).collect(),
            copies: pricing.copies(),
            ways: plan.channels.iter().map(|channel| pricing.way(channel)).collect(),
            reductions: pricing.reductions(),
            phases: (0..plan.mesh.pp).map(|stage| pricing.phases(stage)).collect(),
            cores,
            model_flops: flops_of_step(graph, plan.batch),
            peak: device.peak(dtype) * devices as f64,
        }
    }

    /// Seconds of the parts of a segment, or of a visit on the experts' side.
    pub fn parts(&self, side: Side, chunk: usize, segment: usize) -> &Parts {
        match side {
            Side::Stage => &self.segments[chunk][segment],
            Side::Experts => &self.visits[chunk][segment],
        }
    }
}

/// What prices are made from.
struct Pricing<'a> {
    graph: &'a ModelGraph,
    plan: &'a Plan,
    cluster: &'a Cluster,
    device: &'a Device,
    dtype: DType,
    profile: Option<&'a Profile>,
    /// Calls of an operator for the rows of a visit.
    sources: usize,
    /// Bytes of the optimizer phase, of all ranks of each stage and side.
    exchanged: Vec<[Exchange; 2]>,
    /// What flights keep, by side, chunk and visit.
    keepings: [BTreeMap<(usize, usize), Keeping>; 2],
}

impl Pricing<'_> {
    /// Tokens of a microbatch.
    fn tokens(&self) -> usize {
        self.plan.batch.microbatch * self.plan.batch.context
    }

    /// Rows that each rank sends to the experts, and each group receives, in a visit.
    fn rows(&self, visit: &Visit) -> usize {
        let dispatch = visit.inputs.first().map(|&(node, _)| &self.graph.node(node).op);
        match dispatch {
            Some(Op::Dispatch(op)) => self.tokens() * op.experts_per_token,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests;
