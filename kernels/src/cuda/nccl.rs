//! Messages between GPUs by NCCL: rows to one peer, ragged rows to all, gathers, sums.
//!
//! A [`Communicator`] is one rank's place among ranks that each have a GPU of their own, in this
//! process or in others that have its [`UniqueId`]. Nothing here waits for ever: communicators are
//! NCCL's non-blocking ones, a call that takes longer than their limit is an error, and with the
//! first error a rank leaves its communicator, which then gives that error to every later call.
//!
//! Messages are queued on a [`Stream`], as kernels are, and a stream stops at a message until the
//! other side has come to it. So what is received may be read behind an [`Event`], which has to be
//! waited for by [`Communicator::wait`]: [`Event::wait`] and [`Stream::wait`] know no limit. Two
//! ranks that each send before they receive wait for each other; messages of one [`group`] go on
//! together.
//!
//! [`Event`]: super::Event
//! [`Event::wait`]: super::Event::wait
//! [`Stream`]: super::Stream
//! [`Stream::wait`]: super::Stream::wait

mod communicator;
mod exchange;
mod group;
mod join;
mod library;

pub use self::{
    communicator::{Communicator, finish},
    exchange::{Exchanged, Rows},
    group::{Group, group},
    join::UniqueId,
};
use super::DeviceError;

/// NCCL's version, as `2.30.7`.
pub(crate) fn version() -> Result<String, DeviceError> {
    library::functions().map(library::Functions::version)
}
