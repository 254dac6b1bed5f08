//! When a GPU did what an actor queued, told by the host's clock.
//!
//! The host is ahead of the GPU, so its own clock says nothing of how long an instruction took. Two
//! events stand around each one that computes; they are read at the end of the program, when the
//! host waits for the GPU anyway.

use std::time::{Duration, Instant};

use kernels::cuda::{DeviceError, Event, Gpu};
use ops::Place;

/// The clock of a GPU from the begin of a step on, and what was marked on it.
#[derive(Debug)]
pub(crate) struct Moments {
    gpu: Gpu,
    /// An event, and when it was reached.
    zero: (Event, Instant),
    /// Instructions of the program with their begin and end.
    marked: Vec<(usize, Event, Event)>,
}

/// A call of the driver, which succeeds as long as the device works.
///
/// # Panics
///
/// With the error, which an actor makes the step's failure.
pub(crate) fn done<T>(result: Result<T, DeviceError>) -> T {
    result.unwrap_or_else(|error| std::panic::panic_any(error))
}

impl Moments {
    /// Begins a step on a GPU, once it has done all that came before; none on the host.
    pub(crate) fn begin(place: &Place) -> Option<Self> {
        let Place::Gpu(gpu) = place else { return None };
        let zero = done(gpu.event());
        done(zero.wait());
        Some(Moments { gpu: gpu.clone(), zero: (zero, Instant::now()), marked: Vec::new() })
    }

    /// A place in what is queued.
    pub(crate) fn mark(&self) -> Event {
        done(self.gpu.event())
    }

    /// Notes that an instruction has been queued since `begin`.
    pub(crate) fn end(&mut self, instruction: usize, begin: Event) {
        let end = self.mark();
        self.marked.push((instruction, begin, end));
    }

    /// Instructions with begin and end; waits for the last one.
    pub(crate) fn take(&mut self) -> Vec<(usize, Instant, Instant)> {
        if let Some((_, _, last)) = self.marked.last() {
            done(last.wait());
        }
        let (zero, since) = &self.zero;
        let at = |event: &Event| {
            let us = done(zero.us_to(event)).max(0.0);
            *since + Duration::from_secs_f64(f64::from(us) * 1e-6)
        };
        let marked = std::mem::take(&mut self.marked);
        marked.iter().map(|(instruction, begin, end)| (*instruction, at(begin), at(end))).collect()
    }
}
