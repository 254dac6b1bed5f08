//! All flights of one actor, and the account of what they hold.
//!
//! A flight changes only inside [`Flights::edit`], which books what it gained and freed. The plan's
//! memory scan books the same way, so both can be compared to the byte.

use std::collections::BTreeMap;

use graphs::{edge::Class, flight::Flight, memory::Tide};
use ops::Tensor;

/// Chunk, visit (0 on the stage side), microbatch, source rank (own rank on the stage side).
pub type FlightKey = (usize, usize, usize, usize);

/// Microbatches between their first `F` and their last `W`.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    all: BTreeMap<FlightKey, Flight<Tensor>>,
    /// What they hold, with the gradient sums of the actor; begun anew each step.
    pub tide: Tide,
    /// What they hold on the host.
    pub host: Tide,
}

impl Flights {
    /// Forgets the account of the last step, which left nothing behind.
    pub fn begin(&mut self) {
        self.all.clear();
        self.tide = Tide::default();
        self.host = Tide::default();
    }

    /// A flight under way.
    ///
    /// # Panics
    ///
    /// If it has not begun or is over, which no checked plan allows.
    pub fn get(&self, key: FlightKey) -> &Flight<Tensor> {
        self.all.get(&key).expect("the plan reads a flight after its F and before its W")
    }

    /// Works on a flight, which begins with the first edit and is over when nothing is left of it.
    pub fn edit<R>(&mut self, key: FlightKey, work: impl FnOnce(&mut Flight<Tensor>) -> R) -> R {
        let mut flight = self.all.remove(&key).unwrap_or_default();
        flight.ledger().restart();
        let (before, host) = (flight.ledger().live().clone(), flight.host().clone());
        let result = work(&mut flight);
        if *flight.host() != host {
            let after = flight.host();
            self.host.pass(&host, std::slice::from_ref(after), &host.changes(after), 0);
        }
        let ledger = flight.ledger();
        self.tide.pass(&before, ledger.highs(), &before.changes(ledger.live()), 0);
        if !flight.is_empty() {
            self.all.insert(key, flight);
        }
        result
    }

    /// Books gradient sums that have just been allocated.
    pub fn open_lanes(&mut self, bytes: u64) {
        self.tide.grow(Class::WeightGradients, bytes);
    }
}
