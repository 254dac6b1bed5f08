//! The way of items to the host and back, in four steps that the plan's programs order.
//!
//! Bytes on the device are given back when a copy to the host is done, and taken when a copy back
//! begins; on the host it is the other way round.

use super::{Flight, Held, Item, Keeping, Lump, class};
use crate::model::ModelGraph;

/// Items on their way, with what is copied.
pub type Batch<T> = Vec<(Item, Lump<T>)>;

impl<T: Held> Flight<T> {
    /// What is kept and can go to the host; what is stored in FP8 only if asked.
    pub fn leaving(&self, graph: &ModelGraph, keeping: &Keeping, stored: bool) -> Batch<T> {
        let is_meant = |lump: &Lump<T>| stored || matches!(lump, Lump::Plain(_));
        let here = self.kept.iter().filter(|(_, slot)| !slot.is_away && is_meant(&slot.lump));
        let counted = here.filter(|(item, _)| class(graph, keeping, **item).is_some());
        counted.map(|(item, slot)| (*item, slot.lump.clone())).collect()
    }

    /// Begins to copy to the host, whose pool has room for it from now on.
    pub fn offload(&mut self, graph: &ModelGraph, keeping: &Keeping, batch: &Batch<T>) {
        for (item, lump) in batch {
            if let Some(class) = class(graph, keeping, *item) {
                self.host.add(class, lump.amount());
            }
        }
    }

    /// Lets go of what has been copied to the host, and holds the copies.
    pub fn offloaded(&mut self, batch: Batch<T>) {
        for (item, lump) in batch {
            if let Some(slot) = self.kept.get_mut(&item) {
                slot.lump.release(&mut self.ledger);
                slot.lump = lump;
                slot.is_away = true;
            }
        }
    }

    /// What is on the host.
    pub fn coming(&self) -> Batch<T> {
        let away = self.kept.iter().filter(|(_, slot)| slot.is_away);
        away.map(|(item, slot)| (*item, slot.lump.clone())).collect()
    }

    /// Begins to fetch from the host; the device has room for it from now on.
    pub fn fetch(&mut self, graph: &ModelGraph, keeping: &Keeping, batch: &Batch<T>) {
        for (item, lump) in batch {
            if let Some(class) = class(graph, keeping, *item) {
                self.ledger.reserve(class, lump.amount());
            }
        }
    }

    /// Puts what has come from the host in its place.
    pub fn fetched(&mut self, graph: &ModelGraph, keeping: &Keeping, batch: Batch<T>) {
        for (item, lump) in batch {
            let class = class(graph, keeping, item);
            let (Some(slot), Some(class)) = (self.kept.get_mut(&item), class) else { continue };
            self.ledger.fill(class, slot.lump.amount());
            lump.hold(&mut self.ledger, Some(class));
            self.host.subtract(class, slot.lump.amount());
            slot.lump = lump;
            slot.is_away = false;
        }
    }
}
