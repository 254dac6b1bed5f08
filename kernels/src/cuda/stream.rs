//! Work in order: a device works off each stream's calls one after the other, and waits between
//! streams only where an event says so.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::{
    Device, DeviceError,
    arena::{Element, Pinned, View, ViewMut},
    error::Doing,
};

/// A queue of a device; clones are the same.
#[derive(Clone, Debug)]
pub struct Stream {
    inner: Arc<Handle>,
    device: Device,
}

#[derive(Debug)]
struct Handle {
    stream: sys::CUstream,
    /// Kept so that the context outlives the stream.
    device: Device,
}

/// The queues of a device: what one lane of a program says goes into one of them.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Kernels and products.
    pub compute: Stream,
    /// Messages to and from other devices.
    pub communication: Stream,
    /// Copies to the host.
    pub out: Stream,
    /// Copies back from it; a bus carries both ways at a time.
    pub back: Stream,
}

/// A place in a stream.
#[derive(Debug)]
pub struct Event {
    event: sys::CUevent,
    device: Device,
}

// SAFETY: the driver's streams may be used from every thread; its calls lock them.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
// SAFETY: the driver's events may be used from every thread; its calls lock them.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Streams {
    /// New queues of a device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    pub fn new(device: &Device) -> Result<Self, DeviceError> {
        let stream = || Stream::new(device);
        Ok(Streams {
            compute: stream()?,
            communication: stream()?,
            out: stream()?,
            back: stream()?,
        })
    }
}

impl Stream {
    /// A new queue of a device, which waits for no other.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    pub fn new(device: &Device) -> Result<Self, DeviceError> {
        device.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .doing("making a stream")?;
        let inner = Arc::new(Handle { stream, device: device.clone() });
        Ok(Stream { inner, device: device.clone() })
    }

    /// Whose it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.inner.stream
    }

    /// Waits until all that has been queued is done.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] with what went wrong in any of it.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: the stream is destroyed with the last holder of `inner`.
        unsafe { result::stream::synchronize(self.raw()) }.doing("waiting for the GPU")
    }

    /// Marks the place that the stream has come to when all queued so far is done.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    pub fn event(&self) -> Result<Event, DeviceError> {
        self.device.bind()?;
        let event =
            result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).doing("making an event")?;
        let event = Event { event, device: self.device.clone() };
        // SAFETY: event and stream live.
        unsafe { result::event::record(event.event, self.raw()) }.doing("recording an event")?;
        Ok(event)
    }

    /// Lets what is queued from now on wait for a place in another stream.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    pub fn wait_for(&self, event: &Event) -> Result<(), DeviceError> {
        self.device.bind()?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: event and stream live; the driver keeps what it needs of the event.
        unsafe { result::stream::wait_event(self.raw(), event.event, flags) }
            .doing("waiting for an event")
    }

    /// Copies to the device, and waits for it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn upload<T: Element>(&self, from: &[T], to: ViewMut<'_, T>) -> Result<(), DeviceError> {
        assert_eq!(from.len(), to.len(), "elements to copy");
        if from.is_empty() {
            return Ok(());
        }
        self.device.bind()?;
        // SAFETY: both have as many bytes, and neither goes away before the wait.
        unsafe { result::memcpy_htod_async(to.at(), from, self.raw()) }
            .doing("copying to the GPU")?;
        self.wait()
    }

    /// Queues a copy to the device of values that may change as soon as this returns.
    ///
    /// The driver takes what is not pinned to a place of its own before it returns.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn send<T: Element>(&self, from: &[T], to: ViewMut<'_, T>) -> Result<(), DeviceError> {
        assert_eq!(from.len(), to.len(), "elements to copy");
        if from.is_empty() {
            return Ok(());
        }
        self.device.bind()?;
        // SAFETY: both have as many bytes; the driver reads pageable memory before it returns.
        unsafe { result::memcpy_htod_async(to.at(), from, self.raw()) }.doing("copying to the GPU")
    }

    /// Copies to the host, and waits for it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses, or with what went wrong before.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn download<T: Element>(&self, from: View<'_, T>, to: &mut [T]) -> Result<(), DeviceError> {
        assert_eq!(from.len(), to.len(), "elements to copy");
        if to.is_empty() {
            return Ok(());
        }
        self.device.bind()?;
        // SAFETY: both have as many bytes, and neither goes away before the wait.
        unsafe { result::memcpy_dtoh_async(to, from.at(), self.raw()) }
            .doing("copying from the GPU")?;
        self.wait()
    }

    /// Queues a copy to the device out of pinned memory, which has to stay as it is until then.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn fetch<T: Element>(
        &self,
        from: &Pinned<T>,
        to: ViewMut<'_, T>,
    ) -> Result<(), DeviceError> {
        assert_eq!(from.len(), to.len(), "elements to copy");
        self.device.bind()?;
        // SAFETY: both have as many bytes; pinned memory waits for the device before it goes.
        unsafe { result::memcpy_htod_async(to.at(), from.all(), self.raw()) }
            .doing("copying to the GPU")
    }

    /// Queues a copy into pinned memory, which may be read behind an event.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn offload<T: Element>(
        &self,
        from: View<'_, T>,
        to: &mut Pinned<T>,
    ) -> Result<(), DeviceError> {
        assert_eq!(from.len(), to.len(), "elements to copy");
        self.device.bind()?;
        // SAFETY: both have as many bytes; pinned memory waits for the device before it goes.
        unsafe { result::memcpy_dtoh_async(to.all_mut(), from.at(), self.raw()) }
            .doing("copying from the GPU")
    }

    /// Queues a copy on the device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn copy<T: Element>(
        &self,
        from: View<'_, T>,
        to: ViewMut<'_, T>,
    ) -> Result<(), DeviceError> {
        assert_eq!(from.len(), to.len(), "elements to copy");
        self.device.bind()?;
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: both lie in arenas, with as many bytes.
        unsafe { result::memcpy_dtod_async(to.at(), from.at(), from.bytes(), self.raw()) }
            .doing("copying on the GPU")
    }

    /// Queues the writing of one byte all over.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    pub fn fill<T: Element>(&self, to: ViewMut<'_, T>, byte: u8) -> Result<(), DeviceError> {
        self.device.bind()?;
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: the view lies in an arena and has so many bytes; every byte is an element's.
        unsafe { result::memset_d8_async(to.at(), byte, to.bytes(), self.raw()) }
            .doing("filling memory of the GPU")
    }
}

impl Event {
    /// Whether the stream has come to it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] with what went wrong before it.
    pub fn is_reached(&self) -> Result<bool, DeviceError> {
        self.device.bind()?;
        // SAFETY: the event lives.
        match unsafe { result::event::query(self.event) } {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => other.doing("asking for an event").map(|()| true),
        }
    }

    /// Waits until the stream has come to it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] with what went wrong before it.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.device.bind()?;
        // SAFETY: the event lives.
        unsafe { result::event::synchronize(self.event) }.doing("waiting for an event")
    }

    /// Microseconds from this to a later one; both have to be reached.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if one of them is not.
    pub fn us_to(&self, later: &Event) -> Result<f32, DeviceError> {
        self.device.bind()?;
        // SAFETY: both events live.
        let ms = unsafe { result::event::elapsed(self.event, later.event) };
        Ok(ms.doing("asking for the time between events")? * 1e3)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: nobody else has the stream; the driver ends what is queued first.
            let _ = unsafe { result::stream::destroy(self.stream) };
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: nobody else has the event; the driver keeps what streams still need of it.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}
