//! Ranks that compute at a given speed, whatever the machine does.
//!
//! Each rank has a device that both its actors share: one computes at a time, and an instruction
//! takes at least as long as the plan's prices say. What the machine needs less is slept away, so
//! many ranks can be timed on a few cores, as long as these are faster than all ranks together.

use std::{
    sync::{Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use graphs::{
    address::Address,
    cluster::{Cluster, Machine},
    plan::Instruction,
    price::{Parts, Prices},
};

use crate::cluster::Setup;

/// Prices to keep to, and the devices of all ranks.
#[derive(Debug)]
pub struct Pace {
    prices: Prices,
    devices: Vec<Mutex<()>>,
}

/// A device that is being used.
pub(crate) struct Use<'a> {
    _device: MutexGuard<'a, ()>,
    until: Instant,
}

impl Pace {
    /// The pace of a machine whose ranks have cores of their own.
    pub(crate) fn new(machine: &Machine, setup: &Setup) -> Option<Self> {
        let cluster = machine.apart.then(|| Cluster::Machine(machine.clone()))?;
        let prices = Prices::new(&setup.graph, &setup.plan, &cluster, setup.dtype, None);
        let devices = (0..setup.plan.mesh.ranks()).map(|_| Mutex::new(())).collect();
        Some(Pace { prices, devices })
    }

    /// Takes the device of an actor's rank for an instruction, when it is free; the other actor of
    /// the rank waits no longer than this one computes.
    pub(crate) fn begin(&self, rank: usize, me: Address, instruction: Instruction) -> Use<'_> {
        self.take(rank, self.seconds(me, instruction))
    }

    /// Takes the device of an actor's rank for the updates of what it owns.
    pub(crate) fn begin_updates(&self, rank: usize, me: Address) -> Use<'_> {
        self.take(rank, self.prices.phases[me.stage][me.side as usize].update)
    }

    fn take(&self, rank: usize, seconds: f64) -> Use<'_> {
        let device = self.devices[rank].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Use { _device: device, until: Instant::now() + Duration::from_secs_f64(seconds) }
    }

    fn seconds(&self, me: Address, instruction: Instruction) -> f64 {
        let part =
            |chunk, segment, of: fn(&Parts) -> f64| of(self.prices.parts(me.side, chunk, segment));
        match instruction {
            Instruction::Forward { chunk, segment, .. } => part(chunk, segment, |it| it.forward),
            Instruction::Restore { chunk, segment, .. } => part(chunk, segment, |it| it.restore),
            Instruction::BackwardInput { chunk, segment, .. } => {
                part(chunk, segment, |it| it.input)
            }
            Instruction::BackwardWeight { chunk, segment, .. } => {
                part(chunk, segment, |it| it.weight)
            }
            Instruction::Receive { .. }
            | Instruction::Send { .. }
            | Instruction::Copy { .. }
            | Instruction::Reduce { .. } => 0.0,
        }
    }
}

impl Use<'_> {
    /// Sleeps until the instruction has taken its time.
    pub(crate) fn end(self) {
        thread::sleep(self.until.saturating_duration_since(Instant::now()));
    }
}
