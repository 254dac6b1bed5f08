//! Messages between the GPUs of one process.
//!
//! One communicator joins them all, and every message is a group of one sending and one receiving
//! GPU that is asked for under one lock. So all GPUs come to all messages in one order, and none
//! waits for another in a circle.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Gpu, Inner};
use crate::cuda::{
    Arena, Buffer, Device, DeviceError, Event, Streams, View,
    nccl::{Communicator, finish, group},
    products::Products,
};

/// How long GPUs may take to find each other.
const JOINING: Duration = Duration::from_secs(60);

/// How long a message may take, with all that is queued before it: less than what the watchdog of
/// a run waits for, so that a message which does not come is told as what it is.
const LIMIT: Duration = Duration::from_secs(20);

/// How long a message is waited for without a look at NCCL's errors.
const USUAL: Duration = Duration::from_millis(200);

/// The GPUs of one process, which send each other messages.
#[derive(Debug)]
pub(super) struct Peers {
    /// One of each GPU, in the order of their ranks.
    communicators: Mutex<Vec<Communicator>>,
}

/// The place of a GPU among its peers.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    peers: Arc<Peers>,
    rank: usize,
}

impl Gpu {
    /// Takes so many bytes of each of several devices, which will send each other messages.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if one does not have them, or cuBLASLt or NCCL cannot be used.
    pub fn all(devices: &[Device], bytes: &[u64]) -> Result<Vec<Self>, DeviceError> {
        assert_eq!(devices.len(), bytes.len(), "bytes of each device");
        let peers = match devices.len() {
            0 | 1 => None,
            _ => {
                let all = Communicator::of_devices(devices, JOINING)?.into_iter();
                let all = all.map(|communicator| communicator.with_limit(LIMIT)).collect();
                Some(Arc::new(Peers { communicators: Mutex::new(all) }))
            }
        };
        let seat = |rank| peers.clone().map(|peers| Seat { peers, rank });
        let each = devices.iter().zip(bytes).enumerate();
        each.map(|(rank, (device, bytes))| Gpu::seated(device, *bytes, seat(rank))).collect()
    }

    pub(super) fn seated(
        device: &Device,
        bytes: u64,
        seat: Option<Seat>,
    ) -> Result<Self, DeviceError> {
        let (streams, arena) = (Streams::new(device)?, Arena::new(device, bytes)?);
        let products = Products::new(&streams.compute, &arena)?;
        let (turns, pool) = (Mutex::default(), Arc::default());
        Ok(Gpu { inner: Arc::new(Inner { streams, arena, products, turns, pool, seat }) })
    }

    /// Whether both are the same GPU with the same arena.
    pub fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Copies pieces of another GPU to this one, beside what both compute, once what is queued
    /// there is done; waits for it, as the thread of a communication lane may.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if there is no room, or NCCL refuses or takes too long.
    ///
    /// # Panics
    ///
    /// If the two were not made together.
    pub fn receive(
        &self,
        from: &Gpu,
        pieces: &[View<'_, u8>],
    ) -> Result<Vec<Buffer<u8>>, DeviceError> {
        let (Some(own), Some(other)) = (&self.inner.seat, &from.inner.seat) else {
            panic!("two GPUs that were not made together");
        };
        assert!(Arc::ptr_eq(&own.peers, &other.peers), "two GPUs that were not made together");
        let mut buffers: Vec<Buffer<u8>> =
            pieces.iter().map(|piece| self.buffer(piece.len())).collect::<Result<_, _>>()?;
        let (out, into) = (&from.inner.streams.communication, &self.inner.streams.communication);
        let arrived = {
            let all = own.peers.communicators.lock().unwrap_or_else(PoisonError::into_inner);
            // The pieces have to be there, and nothing queued may still use the places.
            out.wait_for(&from.event()?)?;
            into.wait_for(&self.event()?)?;
            group(|group| {
                for (piece, buffer) in pieces.iter().zip(&mut buffers) {
                    group.send(&all[other.rank], out, *piece, own.rank);
                    group.receive(&all[own.rank], into, buffer.view_mut(), other.rank);
                }
            })?;
            [(other.rank, out.event()?), (own.rank, into.event()?)]
        };
        arrived.iter().try_for_each(|(rank, event)| own.peers.wait(*rank, event))?;
        Ok(buffers)
    }
}

impl Peers {
    /// Waits for an event without the lock; what takes long is looked at with it.
    fn wait(&self, rank: usize, event: &Event) -> Result<(), DeviceError> {
        let start = Instant::now();
        while !event.is_reached()? {
            if USUAL < start.elapsed() {
                let all = self.communicators.lock().unwrap_or_else(PoisonError::into_inner);
                return all[rank].wait(event);
            }
            thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let mut all = self.communicators.lock().unwrap_or_else(PoisonError::into_inner);
        // With an error somebody has left already, and so do the others when they are dropped.
        let _ = finish(std::mem::take(&mut *all));
    }
}
