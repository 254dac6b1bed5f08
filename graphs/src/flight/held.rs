//! A tensor, or what stands for it on paper.

use ops::{Stored, Tensor};

use crate::flight::{Amount, Made};

/// Something that takes memory.
pub trait Buffer: Clone {
    /// Where it lies and how far it reaches; buffers that agree in both share their memory.
    fn place(&self) -> (usize, usize);

    /// Bytes of its elements, those of a slice being its own and not the whole's.
    fn amount(&self) -> Amount;
}

/// A tensor of a flight.
pub trait Held: Buffer {
    /// The same in FP8.
    type Stored: Buffer + std::fmt::Debug;

    /// A tensor of no element, in the place of the gradient of whole numbers.
    fn empty() -> Self;

    /// The sum with another of the same shape, a new tensor.
    fn plus(&self, other: &Self) -> Self;

    /// Writes it in FP8, in tiles along rows of so many elements.
    fn store(&self, width: usize) -> Self::Stored;

    /// Reads it back in the format that it had.
    fn load(stored: &Self::Stored) -> Self;
}

impl Buffer for Tensor {
    fn place(&self) -> (usize, usize) {
        (self.address(), self.byte_len())
    }

    fn amount(&self) -> Amount {
        Amount { fixed: self.byte_len() as u64, per_row: 0 }
    }
}

impl Buffer for Stored {
    fn place(&self) -> (usize, usize) {
        Stored::place(self)
    }

    fn amount(&self) -> Amount {
        Amount { fixed: self.bytes(), per_row: 0 }
    }
}

impl From<ops::Forward> for Made<Tensor> {
    fn from(done: ops::Forward) -> Self {
        let ops::Saved { input, weight } = done.saved;
        Made { outputs: done.outputs, saved_input: input, saved_weight: weight }
    }
}

impl Held for Tensor {
    type Stored = Stored;

    fn empty() -> Self {
        Tensor::from_i32(&[0], Vec::new())
    }

    fn plus(&self, other: &Self) -> Self {
        Tensor::plus(self, other)
    }

    fn store(&self, _width: usize) -> Stored {
        Stored::encode(self)
    }

    fn load(stored: &Stored) -> Self {
        stored.decode()
    }
}
