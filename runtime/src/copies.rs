//! Activations on their way to the host and back, as the program of an actor orders it.

use graphs::{flight::Batch, plan::CopyStep};
use ops::{Place, Tensor};

use crate::{flights::FlightKey, lanes::CopyJob, moments, worker::Worker};

/// What a step waits for: the copy that the step before it began.
fn begun(step: CopyStep) -> Option<CopyStep> {
    match step {
        CopyStep::Offload | CopyStep::Fetch => None,
        CopyStep::Offloaded => Some(CopyStep::Offload),
        CopyStep::Fetched => Some(CopyStep::Fetch),
    }
}

impl Worker {
    /// Whether a step waits for the copy lane.
    pub(crate) fn missing_copy(
        &self,
        step: CopyStep,
        (chunk, segment, microbatch): (usize, usize, usize),
    ) -> bool {
        let Some(begun) = begun(step) else { return false };
        let keys = self.sources().map(|source| self.key(chunk, segment, microbatch, source));
        keys.into_iter().any(|key| !self.copies.contains_key(&(key, begun)))
    }

    /// Takes one step of a flight on the way to the host and back.
    pub(crate) fn copy(&mut self, step: CopyStep, key: FlightKey) {
        let graph = &self.brief.graph;
        let keeping = &self.keepings[&(key.0, key.1)];
        let stored = self.brief.plan.policies.offloads().is_some_and(|how| how.stored);
        let done = begun(step).and_then(|begun| self.copies.remove(&(key, begun)));
        let done: Batch<Tensor> = done.unwrap_or_default();
        let begins = self.flights.edit(key, |flight| match step {
            CopyStep::Offload => {
                let batch = flight.leaving(graph, keeping, stored);
                flight.offload(graph, keeping, &batch);
                Some(batch)
            }
            CopyStep::Offloaded => {
                flight.offloaded(done);
                None
            }
            CopyStep::Fetch => {
                let batch = flight.coming();
                flight.fetch(graph, keeping, &batch);
                Some(batch)
            }
            CopyStep::Fetched => {
                flight.fetched(graph, keeping, done);
                None
            }
        });
        if let Some(batch) = begins {
            let after = match (self.brief.place(self.me), step) {
                (Place::Gpu(gpu), CopyStep::Offload) => Some(moments::done(gpu.event())),
                _ => None,
            };
            self.post().copy(CopyJob { of: self.me, key, step, batch, after });
        }
    }
}
