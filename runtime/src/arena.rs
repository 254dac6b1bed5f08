//! The memory of a rank's device, which its two actors share: a limit, and what they hold of it.
//!
//! On a machine without GPUs the device is emulated: what the actors hold is counted to the byte
//! and a step that would hold more than the limit ends, as it would on a device. The plan knows the
//! same figures beforehand, so a plan that fits never gets here.

use std::sync::atomic::{AtomicU64, Ordering};

use graphs::{edge::Class, memory::Bytes, mesh::Mesh};

use crate::{report::Report, worker::Worker};

/// The devices of all ranks.
#[derive(Debug)]
pub struct Arenas {
    /// Bytes of each device; no limit if left out.
    pub limit: Option<u64>,
    /// Bytes held of each.
    held: Vec<AtomicU64>,
}

impl Arenas {
    /// Empty devices, one for each rank.
    pub fn new(limit: Option<u64>, mesh: &Mesh) -> Self {
        Arenas { limit, held: (0..mesh.ranks()).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Puts what an actor holds now in the place of what it held; returns what its rank holds.
    fn claim(&self, rank: usize, before: u64, now: u64) -> u64 {
        let held = &self.held[rank];
        match now.checked_sub(before) {
            Some(more) => held.fetch_add(more, Ordering::Relaxed) + more,
            None => held.fetch_sub(before - now, Ordering::Relaxed) - (before - now),
        }
    }
}

/// What an actor holds of its rank's device.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    /// Parameters, masters and states.
    fixed: u64,
    /// What it has claimed last.
    bytes: u64,
    /// What came and went, by class, when it did.
    classes: Bytes,
}

impl Claim {
    /// Of parameters, masters and states alone.
    pub(crate) fn new(fixed: u64) -> Self {
        Claim { fixed, ..Claim::default() }
    }
}

impl Worker {
    /// Claims what the last instruction held at most; reports what no longer fits.
    pub(crate) fn claim_memory(&mut self) -> bool {
        let Some(limit) = self.brief.arenas.limit else { return true };
        let mesh = &self.brief.plan.mesh;
        let units = self.units.values().flat_map(|(tokens, targets)| [tokens, targets]);
        let inputs: u64 = units.map(|tensor| tensor.byte_len() as u64).sum();
        let level = self.flights.tide.level();
        let still = self.claim.fixed + inputs + self.mailbox.waiting();
        let rank = self.me.index(mesh) / 2;
        let held = self.brief.arenas.claim(rank, self.claim.bytes, still + level.high);
        let (class, grown) = most_grown(&self.claim.classes, self.flights.tide.live());
        self.brief.arenas.claim(rank, still + level.high, still + level.after);
        self.claim.bytes = still + level.after;
        self.claim.classes = *self.flights.tide.live();
        if held <= limit {
            return true;
        }
        let (from, action) = (self.me, self.action());
        self.post().report(Report::Full { from, action, class, grown, held, limit });
        false
    }
}

/// The class that has grown most, and by how much; if none has, the largest.
fn most_grown(before: &Bytes, now: &Bytes) -> (Class, u64) {
    let grown = |class: &Class| now.get(*class).saturating_sub(before.get(*class));
    let most = Class::ALL.into_iter().max_by_key(|class| (grown(class), now.get(*class)));
    let class = most.unwrap_or(Class::Other);
    (class, grown(&class))
}
