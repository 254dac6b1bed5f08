//! Messages, one by one or many that go on together.

use std::{
    any::TypeId,
    ffi::{c_int, c_void},
};

use cudarc::nccl::sys::{ncclDataType_t, ncclRedOp_t};
use half::bf16;

use super::{
    super::{DeviceError, Element, Stream, View, ViewMut},
    Communicator,
    communicator::settle_all,
    library::{Functions, IN_PROGRESS, SUCCESS, Status, functions},
};

/// Messages that are asked for together, of one communicator or of several in one thread.
#[derive(Debug, Default)]
pub struct Group<'a> {
    calls: Vec<Call<'a>>,
}

/// A message to be; nothing is asked of NCCL before the group ends.
#[derive(Debug)]
struct Call<'a> {
    communicator: &'a Communicator,
    stream: &'a Stream,
    what: What,
    /// Elements that are sent, or received, from each rank.
    count: usize,
    format: ncclDataType_t,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Send { from: u64, peer: usize },
    Receive { to: u64, peer: usize },
    AllGather { from: u64, to: u64 },
    ReduceScatter { from: u64, to: u64 },
}

/// Asks for messages that go on together: a rank may send to others and receive from them, in any
/// order, and a thread may ask for several ranks. Returns when they are queued.
///
/// Messages between two ranks meet in the order in which they were asked for, inside of a group and
/// outside. The first ones between two ranks, and the first gather or sum, make a connection, so
/// they are queued only once the other side asks for its part; a thread that asks for both sides
/// does so in one group.
///
/// # Errors
///
/// [`DeviceError::Message`] with what NCCL says, [`DeviceError::Late`] if a connection takes longer
/// than the limit: all ranks of the group have then left their communicators. The first error of a
/// rank, if it has left before.
pub fn group<'a>(calls: impl FnOnce(&mut Group<'a>)) -> Result<(), DeviceError> {
    let mut group = Group::default();
    calls(&mut group);
    group.ask()
}

impl<'a> Group<'a> {
    /// Sends elements to a rank, which may be this one.
    ///
    /// # Panics
    ///
    /// If there is no such rank, or the stream is of another device.
    pub fn send<T: Element>(
        &mut self,
        communicator: &'a Communicator,
        stream: &'a Stream,
        from: View<'a, T>,
        peer: usize,
    ) {
        assert_peer(communicator, peer);
        self.add::<T>(communicator, stream, What::Send { from: from.at(), peer }, from.len());
    }

    /// Receives as many elements as a rank sends, which may be this one.
    ///
    /// # Panics
    ///
    /// If there is no such rank, or the stream is of another device.
    pub fn receive<T: Element>(
        &mut self,
        communicator: &'a Communicator,
        stream: &'a Stream,
        to: ViewMut<'a, T>,
        peer: usize,
    ) {
        assert_peer(communicator, peer);
        self.add::<T>(communicator, stream, What::Receive { to: to.at(), peer }, to.len());
    }

    /// Hands every rank the elements of all, one rank's after the other's.
    ///
    /// # Panics
    ///
    /// If `to` is not as long as all of them, or the stream is of another device.
    pub fn all_gather<T: Element>(
        &mut self,
        communicator: &'a Communicator,
        stream: &'a Stream,
        from: View<'a, T>,
        to: ViewMut<'a, T>,
    ) {
        assert_eq!(from.len() * communicator.ranks(), to.len(), "elements of all ranks");
        let what = What::AllGather { from: from.at(), to: to.at() };
        self.add::<T>(communicator, stream, what, from.len());
    }

    /// Adds up the elements of all ranks, and hands each rank its part of the sums.
    ///
    /// The order of each sum is NCCL's, and depends on the number of ranks and on how they are
    /// connected. So sums whose bits have to be the same for all plans, as all of Troupe's are, are
    /// no work for this: their terms are sent, and added in the order of lanes.
    ///
    /// # Panics
    ///
    /// If `from` is not as long as the parts of all ranks, or the stream is of another device.
    pub fn reduce_scatter(
        &mut self,
        communicator: &'a Communicator,
        stream: &'a Stream,
        from: View<'a, f32>,
        to: ViewMut<'a, f32>,
    ) {
        assert_eq!(from.len(), to.len() * communicator.ranks(), "elements for all ranks");
        let what = What::ReduceScatter { from: from.at(), to: to.at() };
        self.add::<f32>(communicator, stream, what, to.len());
    }

    /// A message of no element is none.
    fn add<T: Element>(
        &mut self,
        communicator: &'a Communicator,
        stream: &'a Stream,
        what: What,
        len: usize,
    ) {
        let (own, other) = (communicator.device().found(), stream.device().found());
        assert_eq!(own.ordinal, other.ordinal, "device of a stream");
        let (format, count) = format_of::<T>(len);
        if 0 < count {
            self.calls.push(Call { communicator, stream, what, count, format });
        }
    }

    fn ask(&self) -> Result<(), DeviceError> {
        let mut members: Vec<&Communicator> = Vec::new();
        for Call { communicator, .. } in &self.calls {
            communicator.usable()?;
            if !members.iter().any(|member| std::ptr::eq(*member, *communicator)) {
                members.push(communicator);
            }
        }
        let Some(first) = members.first() else { return Ok(()) };
        first.device().bind()?;
        let functions = functions()?;
        // SAFETY: nothing is handed over.
        let mut status = unsafe { (functions.group_start)() };
        for call in &self.calls {
            status = if status == SUCCESS { call.ask(functions) } else { status };
        }
        // SAFETY: the group was begun, and ends whatever happened in it.
        let ended = unsafe { (functions.group_end)() };
        settle_all(&members, "a message", if status == SUCCESS { ended } else { status })
    }
}

impl Call<'_> {
    fn ask(&self, functions: &Functions) -> Status {
        let Call { communicator, stream, what, count, format } = *self;
        let (handle, stream, format) = (communicator.handle, stream.raw(), format as u32);
        let read = |at: u64| at as *const c_void;
        let written = |at: u64| at as *mut c_void;
        // SAFETY: the rank has not left its communicator; the views are as long as `count` says and
        // lie in arenas, and whoever queues work keeps buffers until it is done.
        let status = unsafe {
            match what {
                What::Send { from, peer } => {
                    (functions.send)(read(from), count, format, peer as c_int, handle, stream)
                }
                What::Receive { to, peer } => {
                    (functions.receive)(written(to), count, format, peer as c_int, handle, stream)
                }
                What::AllGather { from, to } => {
                    (functions.all_gather)(read(from), written(to), count, format, handle, stream)
                }
                What::ReduceScatter { from, to } => {
                    let (from, to, sum) = (read(from), written(to), ncclRedOp_t::ncclSum as u32);
                    (functions.reduce_scatter)(from, to, count, format, sum, handle, stream)
                }
            }
        };
        if status == IN_PROGRESS { SUCCESS } else { status }
    }
}

impl Communicator {
    /// Sends elements to another rank, which receives as many; see [`group`].
    ///
    /// # Errors
    ///
    /// As [`group`].
    ///
    /// # Panics
    ///
    /// If there is no such rank, or the stream is of another device.
    pub fn send<T: Element>(
        &self,
        stream: &Stream,
        from: View<'_, T>,
        peer: usize,
    ) -> Result<(), DeviceError> {
        group(|group| group.send(self, stream, from, peer))
    }

    /// Receives as many elements as another rank sends; see [`group`].
    ///
    /// # Errors
    ///
    /// As [`group`].
    ///
    /// # Panics
    ///
    /// If there is no such rank, or the stream is of another device.
    pub fn receive<T: Element>(
        &self,
        stream: &Stream,
        to: ViewMut<'_, T>,
        peer: usize,
    ) -> Result<(), DeviceError> {
        group(|group| group.receive(self, stream, to, peer))
    }

    /// Hands every rank the elements of all; see [`Group::all_gather`].
    ///
    /// # Errors
    ///
    /// As [`group`].
    ///
    /// # Panics
    ///
    /// If `to` is not as long as all of them, or the stream is of another device.
    pub fn all_gather<T: Element>(
        &self,
        stream: &Stream,
        from: View<'_, T>,
        to: ViewMut<'_, T>,
    ) -> Result<(), DeviceError> {
        group(|group| group.all_gather(self, stream, from, to))
    }

    /// Adds up the elements of all ranks in NCCL's order; see [`Group::reduce_scatter`].
    ///
    /// # Errors
    ///
    /// As [`group`].
    ///
    /// # Panics
    ///
    /// If `from` is not as long as the parts of all ranks, or the stream is of another device.
    pub fn reduce_scatter(
        &self,
        stream: &Stream,
        from: View<'_, f32>,
        to: ViewMut<'_, f32>,
    ) -> Result<(), DeviceError> {
        group(|group| group.reduce_scatter(self, stream, from, to))
    }
}

fn assert_peer(communicator: &Communicator, peer: usize) {
    assert!(peer < communicator.ranks(), "rank {peer} of {}", communicator.ranks());
}

/// NCCL's format, and how many of it so many elements are; what it has no name for goes as bytes.
fn format_of<T: Element>(len: usize) -> (ncclDataType_t, usize) {
    let known = [
        (TypeId::of::<f32>(), ncclDataType_t::ncclFloat32),
        (TypeId::of::<bf16>(), ncclDataType_t::ncclBfloat16),
        (TypeId::of::<i32>(), ncclDataType_t::ncclInt32),
        (TypeId::of::<u64>(), ncclDataType_t::ncclUint64),
    ];
    match known.into_iter().find(|(id, _)| *id == TypeId::of::<T>()) {
        Some((_, format)) => (format, len),
        None => (ncclDataType_t::ncclUint8, len * size_of::<T>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_the_sizes_of_elements() {
        assert_eq!(format_of::<f32>(3), (ncclDataType_t::ncclFloat32, 3));
        assert_eq!(format_of::<bf16>(3), (ncclDataType_t::ncclBfloat16, 3));
        assert_eq!(format_of::<i32>(3), (ncclDataType_t::ncclInt32, 3));
        assert_eq!(format_of::<u64>(3), (ncclDataType_t::ncclUint64, 3));
        assert_eq!(format_of::<u8>(3), (ncclDataType_t::ncclUint8, 3));
    }
}
