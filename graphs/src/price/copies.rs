//! What copies to the host and back cost.

use ops::{DType, stored_bytes};

use super::Pricing;
use crate::{
    cluster::Cluster,
    flight::{Form, Item, Keeping, Kept},
    memory::sizes::Sizes,
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
        let sizes = Sizes::new(self.graph, self.plan, self.dtype);
        let stored = self.plan.policies.offloads().is_some_and(|how| how.stored);
        let bytes = |(item, Kept { form, .. }): (Item, Kept)| match (item, form) {
            (Item::Tokens | Item::Targets, _) | (_, Form::Absent) => 0,
            (_, Form::Fp8(_)) if !stored => 0,
            (Item::Edge(port), form) => {
                let plain = sizes.edge(side, port).at(rows as u64);
                match form {
                    Form::Fp8(width) => small(plain, width, self.dtype),
                    Form::Plain | Form::Absent => plain,
                }
            }
            (Item::Beside(node, which), _) => {
                let fresh = keeping.task(node).op.operator().keeps().fresh[which];
                sizes.fresh(side, fresh).at(rows as u64)
            }
        };
        keeping.items().map(bytes).sum::<u64>() as f64
    }
}

/// Bytes in FP8 of what takes so many, in rows of so many elements.
fn small(plain: u64, width: usize, dtype: DType) -> u64 {
    stored_bytes((plain / (width * dtype.size()) as u64) as usize, width)
}
