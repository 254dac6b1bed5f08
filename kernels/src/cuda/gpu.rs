//! A GPU that tensors live on: streams, memory and products in one hand.

mod peers;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use self::peers::Seat;
use super::{
    Arena, Buffer, Device, DeviceError, Element, Event, Pinned, Stream, Streams, View,
    products::Products,
};
use crate::rope::Rotation;

/// A GPU that hosts the ranks of a plan, with an arena of its memory; clones are the same.
///
/// All that computes goes into one stream, whoever asks for it. So a buffer can be dropped as soon
/// as the last work that needs it is queued: whoever gets its place next comes behind that work.
#[derive(Clone, Debug)]
pub struct Gpu {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    streams: Streams,
    arena: Arena,
    products: Products,
    /// Angles that have been uploaded, by name.
    turns: Mutex<BTreeMap<String, Arc<Buffer<f32>>>>,
    pool: Arc<Pool>,
    /// Its place among the GPUs that it was made with.
    seat: Option<Seat>,
}

/// Pinned memory that is free, by bytes; it takes the driver long to make some.
#[derive(Debug, Default)]
struct Pool {
    free: Mutex<BTreeMap<usize, Vec<Pinned<u8>>>>,
}

/// Bytes of the host in pinned memory, which goes back to the pool when this is dropped.
#[derive(Debug)]
pub struct Parked {
    memory: Option<Pinned<u8>>,
    len: usize,
    pool: Arc<Pool>,
}

impl Gpu {
    /// Takes so many bytes of a device.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if it does not have them, or cuBLASLt cannot be used.
    pub fn new(device: &Device, bytes: u64) -> Result<Self, DeviceError> {
        Gpu::seated(device, bytes, None)
    }

    /// What it is.
    pub fn device(&self) -> &Device {
        self.stream().device()
    }

    /// Where all work goes but copies from and to the host that are hidden behind it.
    pub fn stream(&self) -> &Stream {
        &self.inner.streams.compute
    }

    /// The products, in the same stream.
    pub fn products(&self) -> &Products {
        &self.inner.products
    }

    /// The memory.
    pub fn arena(&self) -> &Arena {
        &self.inner.arena
    }

    /// Room for so many elements, whose content is whatever was there.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] if the arena has none.
    pub fn buffer<T: Element>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        self.inner.arena.buffer(len)
    }

    /// Copies to the device, behind all that is queued; does not wait.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if there is no room, or the driver refuses.
    pub fn up<T: Element>(&self, values: &[T]) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.buffer(values.len())?;
        self.stream().send(values, buffer.view_mut())?;
        Ok(buffer)
    }

    /// Copies to the host, and waits for it and all that is queued.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses, or with what went wrong before.
    pub fn down<T: Element>(&self, from: View<'_, T>) -> Result<Vec<T>, DeviceError> {
        let mut values = vec![T::zeroed(); from.len()];
        self.stream().download(from, &mut values)?;
        Ok(values)
    }

    /// Copies elements to memory of their own.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if there is no room, or the driver refuses.
    pub fn copied<T: Element>(&self, from: View<'_, T>) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.buffer(from.len())?;
        self.stream().copy(from, buffer.view_mut())?;
        Ok(buffer)
    }

    /// The angles of a rotation, made and uploaded when its name is first heard.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if there is no room, or the driver refuses.
    pub fn turns(
        &self,
        name: String,
        make: impl FnOnce() -> Rotation,
    ) -> Result<Arc<Buffer<f32>>, DeviceError> {
        let mut turns = self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = turns.get(&name) {
            return Ok(found.clone());
        }
        let made = Arc::new(self.up(&make().turns())?);
        turns.insert(name, made.clone());
        Ok(made)
    }

    /// A place in the compute stream, for copies that have to come behind it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    pub fn event(&self) -> Result<Event, DeviceError> {
        self.stream().event()
    }

    /// Copies to pinned memory of the host beside all that computes, but behind an event; waits
    /// for it, as the thread of a copy lane may.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if the host has no memory, or the driver refuses.
    pub fn park(&self, after: &Event, from: View<'_, u8>) -> Result<Parked, DeviceError> {
        let mut parked = self.parked(from.len())?;
        let out = &self.inner.streams.out;
        out.wait_for(after)?;
        if let Some(memory) = &mut parked.memory {
            out.offload(from, memory)?;
        }
        out.event()?.wait()?;
        Ok(parked)
    }

    /// Copies back beside all that computes; waits for it, as the thread of a copy lane may.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if there is no room, or the driver refuses.
    pub fn fetch(&self, from: &[u8]) -> Result<Buffer<u8>, DeviceError> {
        let mut buffer = self.buffer(from.len())?;
        let back = &self.inner.streams.back;
        // The place may be one that queued work still reads.
        back.wait_for(&self.event()?)?;
        back.send(from, buffer.view_mut())?;
        back.event()?.wait()?;
        Ok(buffer)
    }

    fn parked(&self, len: usize) -> Result<Parked, DeviceError> {
        let pool = self.inner.pool.clone();
        let found = pool.lock().get_mut(&len).and_then(Vec::pop);
        let memory = match found {
            Some(memory) => memory,
            None => Pinned::new(self.device(), len)?,
        };
        Ok(Parked { memory: Some(memory), len, pool })
    }
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Vec<Pinned<u8>>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Parked {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| memory.all())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.lock().entry(self.len).or_default().push(memory);
        }
    }
}
