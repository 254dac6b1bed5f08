//! What copies to the host and back cost.

use ops::stored_bytes;

use super::Pricing;
use crate::{
    cluster::Cluster,
    flight::{Form, Item, Keeping, Kept},
    plan::Side,
};

impl Pricing<'_> {
    /// Seconds of a copy of each home of flights.
    pub(super) fn copies(&self) -> Vec<[Vec<f64>; 2]> {
        let speed = self.bus();
        let homes = |chunk: usize, side: Side| -> Vec<f64> {
            let own = self.keepings[side as usize].range((chunk, 0)..(chunk + 1, 0));
            let seconds = own.map(|(&(_, visit), keeping)| {
                let rows = match side {
                    Side::Stage => 0,
                    Side::Experts => self.rows(&self.plan.chunks[chunk].visits[visit]),
                };
                self.kept_bytes(keeping, side, rows) / speed
            });
            seconds.collect()
        };
        let both = |chunk| [Side::Stage, Side::Experts].map(|side| homes(chunk, side));
        (0..self.plan.chunks.len()).map(both).collect()
    }

    /// Bytes a second between a rank and its host, each way.
    pub(super) fn bus(&self) -> f64 {
        match self.cluster {
            Cluster::Gpus(gpus) => gpus.host.link,
            Cluster::Machine(machine) => machine.host.unwrap_or(machine.core.bandwidth),
        }
    }

    /// Bytes of a flight that go to the host.
    fn kept_bytes(&self, keeping: &Keeping, side: Side, rows: usize) -> f64 {
        let how = self.plan.policies.offloads();
        let stored = how.is_some_and(|how| how.stored);
        let bytes = |(item, Kept { form, .. }): (Item, Kept)| match (item, form) {
            (Item::Tokens | Item::Targets, _) | (_, Form::Absent) => 0,
            (Item::Edge(port), form) => {
                let spec = &self.graph.node(port.0).outputs[port.1];
                let rows = if side == Side::Stage { self.rows_of(port.0) } else { rows };
                let plain = spec.bytes(self.tokens(), rows, self.dtype);
                match form {
                    Form::Fp8(_) if !stored => 0,
                    Form::Fp8(width) => {
                        let row = (width * self.dtype.size()) as u64;
                        stored_bytes((plain / row) as usize, width)
                    }
                    Form::Plain | Form::Absent => plain,
                }
            }
            (Item::Beside(node, which), _) => {
                let fresh = keeping.task(node).op.operator().keeps().fresh[which];
                let amount = if side == Side::Stage { self.tokens() } else { rows };
                fresh.bytes(amount, self.dtype)
            }
        };
        keeping.items().map(bytes).sum::<u64>() as f64
    }

    /// Rows of the edges of a node that a stage holds: those of its own tokens.
    fn rows_of(&self, node: usize) -> usize {
        match self.graph.node(node).op {
            ops::Op::Dispatch(ref op) => self.tokens() * op.experts_per_token,
            _ if self.graph.node(node).on_experts() => {
                let chunk = self.plan.chunks.iter().find(|chunk| chunk.nodes.contains(&node));
                let visits = chunk.into_iter().flat_map(|chunk| &chunk.visits);
                let own = |visit: &&crate::plan::Visit| visit.nodes.iter().any(|it| it.0 == node);
                visits.into_iter().find(own).map_or(0, |visit| self.rows(visit))
            }
            _ => 0,
        }
    }
}
