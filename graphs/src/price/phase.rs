//! What the optimizer phase costs.
//!
//! Gradients go to the holders of slices in F32; for Newton-Schulz, slices of momentum go to one
//! holder and rows of the update come back; new values go to all holders. [`crate::share`] says
//! who sends what, [`Exchange`](crate::share::Exchange) how many bytes that is. A rank is taken as
//! the mean of all that hold the same, and matrices of [`Rule::Muon`] as moved by Muon.

use ops::{DType, Rule, WeightSpec};

use super::{Pricing, ways};
use crate::{
    cluster::{Cluster, Gpus},
    model::NodeId,
    plan::Side,
};

/// Newton-Schulz steps of Muon.
const STEPS: f64 = 5.0;

/// The optimizer phase of one actor, in order; its own parameters and those it owns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Seconds until its gradients are at the holders of slices and joined.
    pub reduce: f64,
    /// Seconds that momentum and updates of cut matrices are on their way.
    pub exchange: f64,
    /// Seconds of the updates of what it owns.
    pub update: f64,
    /// Seconds until it has the new values of others.
    pub gather: f64,
    /// Bytes of gradients that it sends.
    pub reduce_bytes: f64,
    /// Bytes of momentum and of updates that it sends.
    pub exchange_bytes: f64,
    /// Bytes of new values that it receives.
    pub gather_bytes: f64,
}

/// Floating-point operations of one Muon update of an `[r, c]` matrix, `r <= c`.
///
/// ```text
/// 5 * (4 r r c + 2 r r r)
/// ```
///
/// Each Newton-Schulz step makes `A = X X'`, `A A`, and `B X`.
pub fn muon_flops(rows: usize, columns: usize) -> f64 {
    let (short, long) = (rows.min(columns) as f64, rows.max(columns) as f64);
    STEPS * (4.0 * short * short * long + 2.0 * short * short * short)
}

/// What a stage's side holds.
#[derive(Default)]
struct Held {
    elements: f64,
    muon_flops: f64,
    adamw_elements: f64,
    /// The dearest single update; no owner can do with less.
    largest_flops: f64,
}

impl Pricing<'_> {
    pub(super) fn phases(&self, stage: usize) -> [Phase; 2] {
        [Side::Stage, Side::Experts].map(|side| self.phase(stage, side))
    }

    fn phase(&self, stage: usize, side: Side) -> Phase {
        let held = self.held(stage, side);
        let mesh = self.plan.mesh;
        let holders = if side == Side::Stage { mesh.data_ranks() } else { mesh.dp };
        let sent = self.exchanged[stage][side as usize];
        let mean = |bytes: u64| bytes as f64 / mesh.data_ranks() as f64;
        let reduce_bytes = mean(sent.gradients);
        let (there, back) = (mean(sent.momentum), mean(sent.updates));
        let gather_bytes = mean(sent.values);
        let update = self.update(&held, holders as f64) + self.states(&held, holders as f64);
        let (reduce, exchange, gather) = match self.cluster {
            Cluster::Gpus(gpus) => {
                let link = if ways::spreads(gpus, self.plan, stage, side) {
                    gpus.fabric
                } else {
                    gpus.inside
                };
                let time = |bytes: f64| match bytes {
                    0.0 => 0.0,
                    bytes => bytes / link.each + link.latency,
                };
                (time(reduce_bytes), time(there) + time(back), time(gather_bytes))
            }
            Cluster::Machine(_) => (self.join(&held, holders as f64), 0.0, 0.0),
        };
        let exchange_bytes = there + back;
        Phase { reduce, exchange, update, gather, reduce_bytes, exchange_bytes, gather_bytes }
    }

    /// Seconds in which an owner joins the lanes of what it owns, within a machine.
    fn join(&self, held: &Held, holders: f64) -> f64 {
        let lanes = self.plan.batch.lanes.map_or(holders, |lanes| lanes as f64);
        let element = match self.profile {
            Some(profile) => profile.update.join_element,
            None => 12.0 / self.device.bandwidth,
        };
        held.elements / holders * lanes * element
    }

    fn update(&self, held: &Held, owners: f64) -> f64 {
        let (flop, element) = match self.profile {
            Some(profile) => (profile.update.muon_flop, profile.update.adamw_element),
            None => {
                let rate = self.device.peak(self.muon_format()) * self.device.achieved;
                // Reads gradient, master and two moments; writes the latter three and the value.
                (1.0 / rate, 30.0 / self.device.bandwidth)
            }
        };
        let flops = f64::max(held.muon_flops / owners, held.largest_flops);
        flops * flop + held.adamw_elements / owners * element
    }

    /// Seconds in which masters and states cross the bus to the device, and back.
    fn states(&self, held: &Held, owners: f64) -> f64 {
        let by_muon = held.elements - held.adamw_elements;
        let bytes = 4.0 * (2.0 * by_muon + 3.0 * held.adamw_elements) / owners;
        2.0 * self.plan.offload_states * bytes / self.bus()
    }

    /// Newton-Schulz runs in BF16 on GPUs; a machine computes in F32.
    fn muon_format(&self) -> DType {
        match self.cluster {
            Cluster::Gpus(Gpus { .. }) => DType::Bf16,
            Cluster::Machine(_) => DType::F32,
        }
    }

    fn held(&self, stage: usize, side: Side) -> Held {
        let mut held = Held::default();
        for chunk in self.plan.chunks.iter().filter(|chunk| chunk.stage == stage) {
            match side {
                Side::Stage => {
                    let nodes = chunk.segments.iter().flatten();
                    nodes.for_each(|&node| self.hold(&mut held, node, 1));
                }
                Side::Experts => {
                    let nodes = chunk.visits.iter().flat_map(|visit| &visit.nodes);
                    nodes.for_each(|&(node, _)| self.hold(&mut held, node, self.plan.mesh.ep));
                }
            }
        }
        held
    }

    /// Adds the weights of a node, of whose experts each of `groups` holds as many.
    fn hold(&self, held: &mut Held, node: NodeId, groups: usize) {
        let parameters = &self.graph.parameters()[self.graph.node(node).parameters.clone()];
        // The weights of a node that are experts' are alike, so one speaks for all.
        let Some(first) = parameters.first() else { return };
        let (kinds, times) = match first.expert {
            Some(_) => (&parameters[..1], (parameters.len() / groups) as f64),
            None => (parameters, 1.0),
        };
        for WeightSpec { shape, rule, .. } in kinds.iter().map(|parameter| &parameter.spec) {
            let elements = shape.iter().product::<usize>() as f64;
            held.elements += times * elements;
            match (rule, shape.as_slice()) {
                (Rule::Muon, &[rows, columns]) => {
                    let flops = muon_flops(rows, columns);
                    held.muon_flops += times * flops;
                    held.largest_flops = held.largest_flops.max(flops);
                }
                _ => held.adamw_elements += times * elements,
            }
        }
    }
}
