//! What the optimizer phase costs.
//!
//! Gradients go to the holders of slices in F32; for Newton-Schulz, slices of momentum go to one
//! holder and rows of the update come back; new values go to all holders. [`crate::share`] says
//! who sends what, [`Exchange`](crate::share::Exchange) how many bytes that is. A rank is taken as
//! the mean of all that hold the same, and matrices of [`Rule::Muon`] as moved by Muon.

use ops::{DType, Rule, WeightSpec};

use super::{Pricing, Way, ways};
use crate::{
    cluster::{Cluster, Gpus, Link},
    model::NodeId,
    plan::Side,
};

/// Newton-Schulz steps of Muon.
const STEPS: f64 = 5.0;

/// The optimizer phase of one actor, in order; its own parameters and those it owns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phase {
    /// Seconds until its gradients are at the holders of slices and joined; none if they leave
    /// while the program runs ([`Prices::reductions`](super::Prices::reductions)).
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
        let link = self.link_of(stage, side);
        let time = |bytes: f64| match link {
            Some(link) if bytes > 0.0 => bytes / link.each + link.latency,
            _ => 0.0,
        };
        let reduce = match self.plan.reduces_early {
            true => 0.0,
            false => time(reduce_bytes) + self.join(&held, holders as f64),
        };
        let (exchange, gather) = (time(there) + time(back), time(gather_bytes));
        let exchange_bytes = there + back;
        Phase { reduce, exchange, update, gather, reduce_bytes, exchange_bytes, gather_bytes }
    }

    /// The link that carries the messages of the phase, if they take any time.
    fn link_of(&self, stage: usize, side: Side) -> Option<Link> {
        match self.cluster {
            Cluster::Gpus(gpus) if ways::spreads(gpus, self.plan, stage, side) => Some(gpus.fabric),
            Cluster::Gpus(gpus) => Some(gpus.inside),
            Cluster::Machine(machine) => machine.link,
        }
    }

    /// What it costs to send off the gradients of each segment, by chunk and side.
    pub(super) fn reductions(&self) -> Vec<[Vec<Way>; 2]> {
        let chunks = self.plan.chunks.iter();
        let sides = chunks.map(|chunk| {
            let stage: Vec<Held> =
                chunk.segments.iter().map(|nodes| self.held_by(nodes, 1)).collect();
            let visits = chunk.visits.iter().map(|visit| {
                let nodes: Vec<NodeId> = visit.nodes.iter().map(|&(node, _)| node).collect();
                self.held_by(&nodes, self.plan.mesh.ep)
            });
            let visits: Vec<Held> = visits.collect();
            [(Side::Stage, stage), (Side::Experts, visits)].map(|(side, all)| {
                all.iter().map(|held| self.reduction(chunk.stage, side, held)).collect()
            })
        });
        if self.plan.reduces_early { sides.collect() } else { Vec::new() }
    }

    /// The way of some of the gradients of a stage's side: their part of its bytes.
    fn reduction(&self, stage: usize, side: Side, held: &Held) -> Way {
        let all = self.held(stage, side).elements;
        if all == 0.0 {
            return Way::default();
        }
        let mesh = self.plan.mesh;
        let holders = if side == Side::Stage { mesh.data_ranks() } else { mesh.dp };
        let sent = self.exchanged[stage][side as usize].gradients as f64;
        let bytes = sent / mesh.data_ranks() as f64 * held.elements / all;
        let link = self.link_of(stage, side).filter(|_| bytes > 0.0);
        let seconds = link.map_or(0.0, |link| bytes / link.each);
        let is_far = matches!(self.cluster, Cluster::Gpus(gpus)
            if ways::spreads(gpus, self.plan, stage, side));
        let occupies = if is_far { [0.0, seconds] } else { [seconds, 0.0] };
        let latency = link.map_or(0.0, |link| link.latency);
        let sender = self.join(held, holders as f64);
        Way { bytes, occupies, latency, sender, receiver: 0.0 }
    }

    /// Seconds in which an owner joins the lanes of what it owns, within a machine.
    fn join(&self, held: &Held, holders: f64) -> f64 {
        if let Cluster::Gpus(_) = self.cluster {
            return 0.0;
        }
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

    /// What some nodes hold.
    fn held_by(&self, nodes: &[NodeId], groups: usize) -> Held {
        let mut held = Held::default();
        nodes.iter().for_each(|&node| self.hold(&mut held, node, groups));
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
