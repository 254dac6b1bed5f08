//! The formats in which activations lie in memory; arithmetic is in F32 whatever the format.

use std::mem::MaybeUninit;

use half::bf16;

use crate::gemm::{MatrixMut, Values, ValuesMut};

/// A float as it is stored.
pub trait Number: bytemuck::Pod + Send + Sync {
    /// Zero.
    const ZERO: Self;

    /// The value; exact.
    fn wide(self) -> f32;

    /// The nearest number of the format, of two the even one.
    fn nearest(wide: f32) -> Self;

    /// Numbers with the name of their format.
    fn values(all: &[Self]) -> Values<'_>;

    /// A matrix to write, whose rows begin `stride` numbers apart.
    ///
    /// # Panics
    ///
    /// If `all` is too short or the rows overlap.
    fn matrix(all: &mut [Self], rows: usize, cols: usize, stride: usize) -> MatrixMut<'_>;

    /// New memory with the name of its format.
    fn new_values(all: &mut [MaybeUninit<Self>]) -> ValuesMut<'_>;
}

impl Number for f32 {
    const ZERO: f32 = 0.0;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(wide: f32) -> f32 {
        wide
    }

    fn values(all: &[f32]) -> Values<'_> {
        Values::F32(all)
    }

    fn matrix(all: &mut [f32], rows: usize, cols: usize, stride: usize) -> MatrixMut<'_> {
        MatrixMut::strided(all, rows, cols, stride)
    }

    fn new_values(all: &mut [MaybeUninit<f32>]) -> ValuesMut<'_> {
        ValuesMut::NewF32(all)
    }
}

impl Number for bf16 {
    const ZERO: bf16 = bf16::ZERO;

    #[inline(always)]
    fn wide(self) -> f32 {
        crate::cast::widened(self)
    }

    #[inline(always)]
    fn nearest(wide: f32) -> bf16 {
        crate::cast::rounded(wide)
    }

    fn values(all: &[bf16]) -> Values<'_> {
        Values::Bf16(all)
    }

    fn matrix(all: &mut [bf16], rows: usize, cols: usize, stride: usize) -> MatrixMut<'_> {
        MatrixMut::rounded(all, rows, cols, stride)
    }

    fn new_values(all: &mut [MaybeUninit<bf16>]) -> ValuesMut<'_> {
        ValuesMut::NewBf16(all)
    }
}
