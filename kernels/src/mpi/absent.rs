//! What stands in the place of MPI in a program that was built without it: a world that nobody has.

use bytes::Bytes;

use super::{MpiError, Received};

/// No MPI.
pub fn library() -> Option<String> {
    None
}

/// A place among processes, which this build cannot have.
#[derive(Debug)]
pub enum World {}

impl World {
    /// Says that there is none.
    ///
    /// # Errors
    ///
    /// Always [`MpiError::NotBuilt`].
    pub fn join() -> Result<Self, MpiError> {
        Err(MpiError::NotBuilt)
    }

    /// The number of this process.
    pub fn rank(&self) -> usize {
        match *self {}
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        match *self {}
    }

    /// The host of this process.
    pub fn host(&self) -> String {
        match *self {}
    }

    /// Begins to send a message.
    pub fn send(&mut self, _: usize, _: &[u8], _: &[Bytes]) {
        match *self {}
    }

    /// What has arrived.
    pub fn go_on(&mut self) -> Vec<Received> {
        match *self {}
    }

    /// Whether something is under way.
    pub fn is_busy(&self) -> bool {
        match *self {}
    }

    /// Pieces of parts that have left or arrived so far.
    pub fn moved(&self) -> u64 {
        match *self {}
    }

    /// Ends all processes.
    pub fn abort(&self, _: u8) -> ! {
        match *self {}
    }
}
