//! Memory: one piece of the device's, which buffers are cut from, and pinned memory of the host.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use cudarc::driver::{result, sys};

use super::{Device, DeviceError, error::Doing};

/// Buffers begin at multiples of so many bytes: what cuBLASLt and 16-byte accesses like best.
const ALIGNMENT: u64 = 256;

/// What a buffer holds; every pattern of its bits is lawful.
pub trait Element: bytemuck::Pod + Send + Sync + std::fmt::Debug {}

impl Element for f32 {}
impl Element for half::bf16 {}
impl Element for i32 {}
impl Element for u8 {}
impl Element for u64 {}

/// A piece of a device's memory, as large as the plan says; clones are the same.
#[derive(Clone, Debug)]
pub struct Arena {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: Device,
    start: sys::CUdeviceptr,
    total: u64,
    /// Length of each free piece by its offset; no two touch.
    free: Mutex<BTreeMap<u64, u64>>,
}

/// Some elements in an arena, which get back to it when this is dropped.
///
/// The arena may then give the place to somebody else at once: whoever drops a buffer that queued
/// work still needs gives the place to that stream's later work alone, or has waited.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    arena: Arena,
    offset: u64,
    len: usize,
    kind: PhantomData<T>,
}

/// Elements to read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    at: sys::CUdeviceptr,
    len: usize,
    buffer: PhantomData<&'a [T]>,
}

/// Elements to write.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    at: sys::CUdeviceptr,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

impl Arena {
    /// Takes so many bytes of the device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] if it does not have them.
    pub fn new(device: &Device, bytes: u64) -> Result<Self, DeviceError> {
        let total = bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        device.bind()?;
        // SAFETY: the context is current; the memory is freed when the arena is dropped.
        let start = match unsafe { result::malloc_sync(total as usize) } {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = device.memory()?;
                return Err(DeviceError::OutOfMemory {
                    place: "the GPU",
                    asked: bytes,
                    free,
                    total,
                });
            }
            other => other.doing("taking memory of the GPU")?,
        };
        let free = Mutex::new(BTreeMap::from([(0, total)]));
        Ok(Arena { inner: Arc::new(Inner { device: device.clone(), start, total, free }) })
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.inner.total
    }

    /// Bytes that no buffer holds.
    pub fn free_bytes(&self) -> u64 {
        self.free().values().sum()
    }

    /// Cuts off the first piece that is large enough; its content is whatever was there.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] if there is none.
    pub fn buffer<T: Element>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        let bytes = held(len * size_of::<T>());
        let mut free = self.free();
        let piece = free.iter().find(|(_, length)| bytes <= **length);
        let Some((offset, length)) = piece.map(|(offset, length)| (*offset, *length)) else {
            return Err(DeviceError::OutOfMemory {
                place: "the arena",
                asked: (len * size_of::<T>()) as u64,
                free: free.values().sum(),
                total: self.inner.total,
            });
        };
        free.remove(&offset);
        if bytes < length {
            free.insert(offset + bytes, length - bytes);
        }
        drop(free);
        Ok(Buffer { arena: self.clone(), offset, len, kind: PhantomData })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.inner.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that a buffer takes of its arena; one of no element takes some, to have a place.
fn held(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(ALIGNMENT).max(ALIGNMENT)
}

impl<T: Element> Buffer<T> {
    /// Elements.
    #[allow(clippy::len_without_is_empty, reason = "views have it")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// All of it, to read.
    pub fn view(&self) -> View<'_, T> {
        let at = self.arena.inner.start + self.offset;
        View { at, len: self.len, buffer: PhantomData }
    }

    /// All of it, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        let at = self.arena.inner.start + self.offset;
        ViewMut { at, len: self.len, buffer: PhantomData }
    }
}

impl<T: Element> Buffer<T> {
    /// The same memory as bytes.
    pub fn into_bytes(self) -> Buffer<u8> {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: the original is never used or dropped again, so the arena is held once.
        let arena = unsafe { std::ptr::read(&raw const this.arena) };
        Buffer { arena, offset: this.offset, len: this.len * size_of::<T>(), kind: PhantomData }
    }
}

impl Buffer<u8> {
    /// The same memory as elements.
    ///
    /// # Panics
    ///
    /// If it ends within an element.
    pub fn cast<T: Element>(self) -> Buffer<T> {
        let len = self.view().cast::<T>().len();
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: the original is never used or dropped again, so the arena is held once.
        let arena = unsafe { std::ptr::read(&raw const this.arena) };
        Buffer { arena, offset: this.offset, len, kind: PhantomData }
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        let (mut start, mut end) = (self.offset, self.offset + held(self.len * size_of::<T>()));
        let mut free = self.arena.free();
        if let Some(length) = free.remove(&end) {
            end += length;
        }
        let before = free.range(..start).next_back().map(|(offset, length)| (*offset, *length));
        if let Some((offset, length)) = before
            && offset + length == start
        {
            start = offset;
        }
        free.insert(start, end - start);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Work that needs dropped buffers may still be queued.
        if self.device.bind().is_ok() && result::ctx::synchronize().is_ok() {
            // SAFETY: all buffers hold the arena, so none is left, and no work.
            let _ = unsafe { result::free_sync(self.start) };
        }
    }
}

impl<'a, T> View<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of them.
    ///
    /// # Panics
    ///
    /// If they are not all there.
    pub fn part(self, range: Range<usize>) -> View<'a, T> {
        let (at, len) = part_of(self.at, self.len, size_of::<T>(), range);
        View { at, len, buffer: PhantomData }
    }

    /// The same memory as bytes.
    pub fn into_bytes(self) -> View<'a, u8> {
        View { at: self.at, len: self.bytes(), buffer: PhantomData }
    }

    pub(super) fn at(&self) -> sys::CUdeviceptr {
        self.at
    }

    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<'a> View<'a, u8> {
    /// Bytes as what they are.
    ///
    /// # Panics
    ///
    /// If they begin or end within an element.
    pub fn cast<T: Element>(self) -> View<'a, T> {
        let size = size_of::<T>();
        let is_whole = self.len.is_multiple_of(size) && self.at.is_multiple_of(size as u64);
        assert!(is_whole, "{} bytes at {:#x} as elements of {size}", self.len, self.at);
        View { at: self.at, len: self.len / size, buffer: PhantomData }
    }

    /// Where they lie in the memory of the device.
    pub fn address(self) -> u64 {
        self.at
    }
}

impl<'a> ViewMut<'a, u8> {
    /// Bytes as what they are.
    ///
    /// # Panics
    ///
    /// If they begin or end within an element.
    pub fn cast<T: Element>(self) -> ViewMut<'a, T> {
        let View { at, len, .. } = self.view().cast::<T>();
        ViewMut { at, len, buffer: PhantomData }
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of them.
    ///
    /// # Panics
    ///
    /// If they are not all there.
    pub fn part(self, range: Range<usize>) -> ViewMut<'a, T> {
        let (at, len) = part_of(self.at, self.len, size_of::<T>(), range);
        ViewMut { at, len, buffer: PhantomData }
    }

    /// Those before a place, and the others.
    ///
    /// # Panics
    ///
    /// If the place lies behind them.
    pub fn split_at(self, place: usize) -> (ViewMut<'a, T>, ViewMut<'a, T>) {
        let (at, len) = part_of(self.at, self.len, size_of::<T>(), place..self.len);
        (ViewMut { len: place, ..self }, ViewMut { at, len, buffer: PhantomData })
    }

    /// The same elements for as long as this is not used.
    pub fn again(&mut self) -> ViewMut<'_, T> {
        ViewMut { at: self.at, len: self.len, buffer: PhantomData }
    }

    /// The same elements, to read.
    pub fn view(&self) -> View<'_, T> {
        View { at: self.at, len: self.len, buffer: PhantomData }
    }

    pub(super) fn at(&self) -> sys::CUdeviceptr {
        self.at
    }

    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

fn part_of(at: u64, len: usize, bytes: usize, range: Range<usize>) -> (u64, usize) {
    assert!(range.start <= range.end && range.end <= len, "{range:?} of {len} elements");
    (at + (range.start * bytes) as u64, range.len())
}

/// Memory of the host that a device copies from and to without the host's help.
#[derive(Debug)]
pub struct Pinned<T: Element> {
    at: *mut T,
    len: usize,
    device: Device,
}

// SAFETY: the memory is this value's alone, like that of a vector.
unsafe impl<T: Element> Send for Pinned<T> {}
// SAFETY: as above; elements are plain numbers.
unsafe impl<T: Element> Sync for Pinned<T> {}

impl<T: Element> Pinned<T> {
    /// So many elements, all of zero bits.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the host does not have them.
    pub fn new(device: &Device, len: usize) -> Result<Self, DeviceError> {
        device.bind()?;
        let bytes = (len * size_of::<T>()).max(1);
        // SAFETY: the context is current; without flags the memory is cached, as any other.
        let at = unsafe { result::malloc_host(bytes, 0) }.doing("pinning memory of the host")?;
        // SAFETY: there are so many bytes, and nobody else has them.
        unsafe { at.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { at: at.cast(), len, device: device.clone() })
    }

    /// Elements.
    #[allow(clippy::len_without_is_empty, reason = "it is as long as what it was made for")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The elements; copies into them have to be behind a reached event.
    pub fn all(&self) -> &[T] {
        // SAFETY: there are so many elements, written when they were made.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// The elements; copies out of and into them have to be behind a reached event.
    pub fn all_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and nobody else has them.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl<T: Element> Drop for Pinned<T> {
    fn drop(&mut self) {
        // Copies may be under way on any stream; without them there is nothing to wait for.
        if self.device.bind().is_ok() && result::ctx::synchronize().is_ok() {
            // SAFETY: the memory was got from the driver, and nothing copies any more.
            let _ = unsafe { result::free_host(self.at.cast()) };
        }
    }
}
