//! A launch: a kernel, its arguments in order, and how many threads run it.

use std::ffi::c_void;

use cudarc::driver::result;
use half::bf16;

use super::{
    DeviceError, Stream,
    arena::{Element, View, ViewMut},
    error::Doing,
    program::{Format, Program, Source},
};
use crate::number::Number;

/// Most threads of a block of all kernels but attention's forward.
pub(super) const THREADS: u32 = 256;

/// Elements that a thread works on at a time, as in `prelude.cuh`.
const EIGHT: usize = 8;

/// Blocks for each multiprocessor where threads stride over all elements.
const BLOCKS: usize = 16;

/// A float that kernels are compiled for.
pub trait Float: Number + Element {
    /// Its name.
    const FORMAT: Format;
}

impl Float for f32 {
    const FORMAT: Format = Format::F32;
}

impl Float for bf16 {
    const FORMAT: Format = Format::Bf16;
}

/// A kernel that gets its arguments.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    stream: &'a Stream,
    program: Program,
    kernel: &'static str,
    /// All arguments, one behind the other, and where each begins.
    words: Vec<u64>,
    starts: Vec<usize>,
    shared_bytes: u32,
}

impl<'a> Launch<'a> {
    /// A kernel in the form for a format of activations.
    pub(super) fn of<N: Float>(
        stream: &'a Stream,
        source: Source,
        kernel: &'static str,
    ) -> Launch<'a> {
        Self::of_program(stream, Program { source, format: N::FORMAT }, kernel)
    }

    /// A kernel of a program.
    pub(super) fn of_program(
        stream: &'a Stream,
        program: Program,
        kernel: &'static str,
    ) -> Launch<'a> {
        let (words, starts) = (Vec::new(), Vec::new());
        Launch { stream, program, kernel, words, starts, shared_bytes: 0 }
    }

    /// A pointer to elements that are read.
    pub(super) fn read<T>(self, view: View<'_, T>) -> Self {
        self.number(view.at())
    }

    /// A pointer to elements that are written.
    pub(super) fn write<T>(self, view: ViewMut<'_, T>) -> Self {
        self.number(view.at())
    }

    /// An extent, or a number of elements.
    pub(super) fn count(self, count: usize) -> Self {
        self.number(count as u64)
    }

    /// A factor.
    pub(super) fn float(self, x: f32) -> Self {
        self.number(u64::from(x.to_bits()))
    }

    /// A word, of which the kernel takes the lower bytes; so are all arguments passed.
    pub(super) fn number(self, x: u64) -> Self {
        self.words(&[x])
    }

    /// A structure of words.
    pub(super) fn words(mut self, words: &[u64]) -> Self {
        self.starts.push(self.words.len());
        self.words.extend_from_slice(words);
        self
    }

    /// Bytes of shared memory beside what the kernel declares.
    pub(super) fn shared(self, bytes: usize) -> Self {
        Launch { shared_bytes: u32::try_from(bytes).unwrap_or(u32::MAX), ..self }
    }

    /// Queues it for threads that stride over `count` elements in groups of eight.
    pub(super) fn over(self, count: usize) -> Result<(), DeviceError> {
        self.over_pieces(count, 1)
    }

    /// The same for each of some pieces, which lie along y.
    pub(super) fn over_pieces(self, count: usize, pieces: usize) -> Result<(), DeviceError> {
        let blocks = count.div_ceil(EIGHT * THREADS as usize);
        let most = self.stream.device().found().multiprocessors as usize * BLOCKS;
        self.go((blocks.min(most.div_ceil(pieces.max(1))), pieces, 1), (THREADS, 1, 1))
    }

    /// Queues it for one thread for each of `count` elements.
    pub(super) fn each(self, count: usize) -> Result<(), DeviceError> {
        self.each_of_pieces(count, 1)
    }

    /// The same for each of some pieces, which lie along y.
    pub(super) fn each_of_pieces(self, count: usize, pieces: usize) -> Result<(), DeviceError> {
        self.go((count.div_ceil(THREADS as usize), pieces, 1), (THREADS, 1, 1))
    }

    /// Queues it for a block for each row; its threads depend on the width alone, and so do bits.
    pub(super) fn rows(self, rows: usize, width: usize) -> Result<(), DeviceError> {
        self.go((rows, 1, 1), (threads_of_row(width), 1, 1))
    }

    /// Queues it; nothing happens if there is no block.
    pub(super) fn go(
        mut self,
        grid: (usize, usize, usize),
        block: (u32, u32, u32),
    ) -> Result<(), DeviceError> {
        if grid.0 == 0 || grid.1 == 0 || grid.2 == 0 {
            return Ok(());
        }
        let device = self.stream.device();
        device.bind()?;
        let function = device.function(self.program, self.kernel, self.shared_bytes)?;
        let words = &mut self.words;
        let mut arguments: Vec<*mut c_void> =
            self.starts.iter().map(|&start| (&raw mut words[start]).cast()).collect();
        let extent = |n: usize| u32::try_from(n).expect("a grid has at most 2^32 blocks");
        let grid = (extent(grid.0), extent(grid.1), extent(grid.2));
        let (shared, stream) = (self.shared_bytes, self.stream.raw());
        // SAFETY: the callers in this module's siblings pass what the kernel declares, and have
        // checked that all it reads and writes lies within the views.
        unsafe {
            result::launch_kernel(function.handle, grid, block, shared, stream, &mut arguments)
        }
        .doing("launching a kernel")
    }
}

/// Whole warps, of which the last has something to do, at most [`THREADS`] threads.
fn threads_of_row(width: usize) -> u32 {
    (width.div_ceil(EIGHT).next_multiple_of(32) as u32).clamp(32, THREADS)
}
