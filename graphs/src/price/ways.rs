//! What messages cost.

use ops::{Dim, Kind};

use super::Pricing;
use crate::{
    cluster::{Cluster, Gpus, Machine},
    model::Port,
    plan::{Cargo, Channel, Side},
};

/// The price of one token of a channel, for the rank that sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Way {
    /// Bytes to all peers together; what stays on the rank itself counts.
    pub bytes: f64,
    /// Seconds that it takes of the link inside the node, and of the fabric; both at a time.
    pub occupies: [f64; 2],
    /// Seconds after that until it has arrived.
    pub latency: f64,
    /// Seconds that the sender computes for it.
    pub sender: f64,
    /// Seconds that the receiver computes for it.
    pub receiver: f64,
}

impl Way {
    /// Seconds from the start of the transfer to its arrival.
    pub fn seconds(&self) -> f64 {
        self.occupies[0].max(self.occupies[1]) + self.latency
    }
}

impl Pricing<'_> {
    pub(super) fn way(&self, channel: &Channel) -> Way {
        let bytes = self.cargo_bytes(channel.cargo);
        match self.cluster {
            Cluster::Machine(machine) => self.within(machine, channel, bytes),
            Cluster::Gpus(gpus) => self.across(gpus, channel, bytes),
        }
    }

    /// Bytes of one token of a channel, from one rank to all its peers.
    fn cargo_bytes(&self, cargo: Cargo) -> f64 {
        let (ports, rows) = match cargo {
            Cargo::Activations { chunk } => (self.boundary(chunk), 0),
            Cargo::Gradients { chunk } => (self.boundary(chunk.saturating_sub(1)), 0),
            Cargo::Dispatch { chunk, visit } | Cargo::DispatchGradients { chunk, visit } => {
                let visit = &self.plan.chunks[chunk].visits[visit];
                (visit.inputs.clone(), self.rows(visit))
            }
            Cargo::Combine { chunk, visit } | Cargo::CombineGradients { chunk, visit } => {
                let visit = &self.plan.chunks[chunk].visits[visit];
                (visit.outputs.clone(), self.rows(visit))
            }
        };
        let has_counts = matches!(cargo, Cargo::Dispatch { .. });
        ports.into_iter().map(|port| self.port_bytes(port, rows, has_counts)).sum()
    }

    fn boundary(&self, chunk: usize) -> Vec<Port> {
        self.graph.crossing(self.plan.chunks[chunk].nodes.end)
    }

    fn port_bytes(&self, (node, port): Port, rows: usize, has_counts: bool) -> f64 {
        let spec = &self.graph.node(node).outputs[port];
        let extent = |dim: &Dim| match *dim {
            Dim::Tokens => self.tokens(),
            Dim::Rows => rows,
            Dim::Of(width) => width,
        };
        let elements: usize = spec.dims.iter().map(extent).product();
        let size = match spec.kind {
            Kind::Activation => self.dtype.size(),
            Kind::Exact => 4,
            Kind::Index => 4 * usize::from(has_counts),
        };
        (elements * size) as f64
    }

    /// Within a machine bytes are handed over; only pieces that are joined get copied.
    ///
    /// An emulated link carries what leaves the rank: of an all-to-all all but the own part.
    fn within(&self, machine: &Machine, channel: &Channel, bytes: f64) -> Way {
        let cargo = channel.cargo;
        let peers = if cargo.fans_out() { self.plan.mesh.ep } else { 1 } as f64;
        let to_stage = matches!(cargo, Cargo::Combine { .. } | Cargo::DispatchGradients { .. });
        let copied = if to_stage && peers > 1.0 { bytes } else { 0.0 };
        let (message, latency, byte) = match self.profile {
            Some(profile) => (profile.message, profile.latency, profile.byte),
            None => (machine.message, machine.latency, 2.0 / machine.core.bandwidth),
        };
        let leaves = match cargo.fans_out() {
            true => bytes * (1.0 - 1.0 / peers),
            false if channel.from.0 == channel.to.0 => 0.0,
            false => bytes,
        };
        let link = machine.link.filter(|_| leaves > 0.0);
        let occupies = [0.0, link.map_or(0.0, |link| leaves / link.each)];
        let latency = latency + link.map_or(0.0, |link| link.latency);
        Way {
            bytes,
            occupies,
            latency,
            sender: message * peers,
            receiver: message * peers + copied * byte,
        }
    }

    /// Between GPUs: the dearest rank of the stage decides, as the others wait for it.
    fn across(&self, gpus: &Gpus, channel: &Channel, bytes: f64) -> Way {
        let ep = self.plan.mesh.ep;
        let rank = |stage: usize, expert: usize| stage * ep + expert;
        let home = |expert: usize| gpus.node(rank(channel.from.0, expert));
        let (near, far) = if channel.cargo.fans_out() {
            // A rank keeps one part for itself and sends as much to each of the others.
            let nodes: Vec<usize> = (0..ep).map(home).collect();
            let beside = |own: &usize| nodes.iter().filter(|node| *node == own).count();
            let fewest = nodes.iter().map(beside).min().unwrap_or(1);
            let part = bytes / ep as f64;
            (part * (fewest - 1) as f64, part * (ep - fewest) as f64)
        } else {
            let stays = |expert: usize| home(expert) == gpus.node(rank(channel.to.0, expert));
            if (0..ep).all(stays) { (bytes, 0.0) } else { (0.0, bytes) }
        };
        let latency = match (near > 0.0, far > 0.0) {
            (_, true) => gpus.fabric.latency,
            (true, false) => gpus.inside.latency,
            (false, false) => 0.0,
        };
        let occupies = [near / gpus.inside.each, far / gpus.fabric.each];
        Way { bytes, occupies, latency, ..Way::default() }
    }
}

/// Whether ranks that hold the same parameters of a stage stand on several nodes.
pub(super) fn spreads(gpus: &Gpus, plan: &crate::plan::Plan, stage: usize, side: Side) -> bool {
    let mesh = plan.mesh;
    let rank = |replica: usize, expert: usize| (replica * mesh.pp + stage) * mesh.ep + expert;
    let first = gpus.node(rank(0, 0));
    let experts = if side == Side::Stage { mesh.ep } else { 1 };
    (0..mesh.dp).any(|replica| (0..experts).any(|expert| gpus.node(rank(replica, expert)) != first))
}
