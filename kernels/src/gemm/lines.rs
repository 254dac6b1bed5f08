//! Memory for packed operands, in lines of the cache.

use bytemuck::{Pod, Zeroable};

/// A line of 64 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u32; 16]);

// SAFETY: zeros are whole numbers.
unsafe impl Zeroable for Line {}
// SAFETY: an array of whole numbers, as long as it is aligned, so without padding.
unsafe impl Pod for Line {}

/// Plain numbers from the beginning of a cache line on.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// All numbers.
    pub(super) fn get<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.0)
    }

    /// The first `len` numbers, which are whatever was there before; grows if need be.
    pub(super) fn at_least<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if self.0.len() < lines {
            self.0.resize(lines, Line::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
}
