//! Messages between processes by MPI: a head of any bytes, and parts behind it that are not copied.
//!
//! A [`World`] is this process's place among all that one `mpirun` has started. One thread has it,
//! and makes every call. Nothing in it waits: [`World::send`] begins, and [`World::go_on`] finds
//! out what has left and what has arrived; so two processes that send to each other do not wait
//! for each other, however large their messages are. Messages from one process arrive in the order
//! in which it sent them.
//!
//! A program that was built without the feature `mpi` has no world: [`World::join`] says so.

use bytes::Bytes;

#[cfg(not(feature = "mpi"))]
mod absent;
#[cfg(feature = "mpi")]
mod joined;

#[cfg(not(feature = "mpi"))]
pub use self::absent::{World, library};
#[cfg(feature = "mpi")]
pub use self::joined::{World, library};

/// Why there is no world.
#[derive(Debug, thiserror::Error)]
pub enum MpiError {
    /// The program was built without it.
    #[error("this program was built without MPI")]
    NotBuilt,
    /// MPI does not begin, or began before.
    #[error("MPI cannot be initialised in this process")]
    NotInitialised,
}

/// A message of another process.
#[derive(Debug, PartialEq)]
pub struct Received {
    /// Who sent it.
    pub from: usize,
    /// Its head.
    pub head: Vec<u8>,
    /// Its parts.
    pub parts: Vec<Part>,
}

/// Bytes that have arrived, aligned so that they can be read as numbers of four bytes.
#[derive(Debug, Default, PartialEq)]
pub struct Part {
    words: Vec<u32>,
    len: usize,
}

impl Part {
    /// Room for so many bytes.
    pub fn new(len: usize) -> Self {
        Part { words: vec![0; len.div_ceil(size_of::<u32>())], len }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// The bytes, to be shared; copies none.
    pub fn into_bytes(self) -> Bytes {
        struct Words(Vec<u32>);
        impl AsRef<[u8]> for Words {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        let len = self.len;
        Bytes::from_owner(Words(self.words)).slice(..len)
    }

    /// The bytes as floats, which they have to be; copies none. What is left over is cut off.
    pub fn into_floats(mut self) -> Vec<f32> {
        self.words.truncate(self.len / size_of::<f32>());
        bytemuck::cast_vec(self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_as_what_was_written_into_it() {
        let mut part = Part::new(11);
        part.bytes_mut().copy_from_slice(b"eleven byte");
        assert_eq!((part.len(), part.is_empty()), (11, false));
        assert_eq!(&part.into_bytes()[..], b"eleven byte");
        let mut part = Part::new(8);
        part.bytes_mut().copy_from_slice(bytemuck::cast_slice(&[1.5_f32, f32::NAN]));
        let floats = part.into_floats();
        assert_eq!(floats[0], 1.5);
        assert_eq!(floats[1].to_bits(), f32::NAN.to_bits());
        assert_eq!(Part::default().into_floats(), []);
        assert!(Part::new(0).into_bytes().is_empty());
    }
}
