//! Products of each group's rows with the group's own factor, one launch for all groups; the twin
//! of [`crate::gemm::multiply_grouped`], for the three parts of an expert layer.
//!
//! An element's bits depend on its row and column alone: not on the rows beside it, nor on how
//! many groups there are. That is why a device has one kernel for all extents, and no cuBLASLt
//! where groups have many rows: no rank knows how many they have under another plan.

use std::ops::Range;

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::Launch,
    program::{Program, Source},
};
use crate::gemm::Output;

/// Groups of one launch, as in `gemm/groups.cuh`: the table is an argument of 3 KiB.
pub const GROUPS: usize = 128;

/// What a block of a kernel has.
struct Block {
    /// Rows and columns of its tile.
    tile: (usize, usize),
    threads: u32,
    /// Of shared memory.
    bytes: usize,
}

/// `gemm/grouped.cu`: four stages of both factors, 128 rows of 64 bytes each and 16 between them.
const OF_WARPS: Block = Block { tile: (128, 128), threads: 128, bytes: 4 * 2 * 128 * 80 };

/// `gemm/grouped_warpgroups.cu`: four stages of 128 rows and 256 columns of 128 bytes each.
const OF_WARPGROUPS: Block = Block { tile: (128, 256), threads: 256, bytes: 4 * (128 + 256) * 128 };

/// Words of a group in the table.
const WORDS: usize = 3;

/// Extents of every group's matrix, `w [output, input]`, below 2^32.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extents {
    /// Width of a row before.
    pub input: usize,
    /// Width of a row after.
    pub output: usize,
}

/// What becomes of sums before they are rounded, once: `keep base + by sum`.
#[derive(Clone, Copy, Debug)]
pub struct Blend<'a, N> {
    /// What the sum is multiplied by.
    pub by: f32,
    /// `keep`, which is not zero, and `base`, which lies like the output.
    pub base: Option<(f32, View<'a, N>)>,
}

/// A group's part of a sum of weight gradients.
#[derive(Debug)]
pub struct Sum<'a> {
    /// The rows of the group among all rows.
    pub rows: Range<usize>,
    /// `[output, input]`.
    pub dw: ViewMut<'a, f32>,
    /// Whether it is written or added to.
    pub output: Output,
}

impl<'a, N: Float> Blend<'a, N> {
    /// The sums as they are.
    pub const SUMS: Self = Blend { by: 1.0, base: None };

    /// The three arguments of a kernel with this output.
    fn arguments<'b>(self, launch: Launch<'b>, output: View<'_, N>) -> Launch<'b> {
        let (keep, base) = self.base.unwrap_or((0.0, output));
        assert_eq!(base.len(), output.len(), "what sums are blended with");
        launch.read(base).float(keep).float(self.by)
    }
}

/// A group that has rows, as the kernels know it.
struct Group {
    at: u64,
    rows: Range<usize>,
    is_added: bool,
}

/// Queues what becomes of `sum_i x[r, i] w_e[o, i]` for the rows of each group `e`: `y[r, o]`.
///
/// `counts` are the rows of each group, one after the other; a group without rows costs nothing.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other, or an extent is too large.
pub fn forward<N: Float>(
    stream: &Stream,
    at: Extents,
    x: View<'_, N>,
    counts: &[usize],
    w: &[View<'_, N>],
    blend: Blend<'_, N>,
    mut y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let groups = with_rows(at, counts, w, x.len(), y.len());
    let extents = |group: &Group| (group.rows.len(), at.output);
    launches::<N>(stream, at, "grouped_forward", &groups, extents, |launch| {
        let launch = launch.read(x).count(at.input).count(at.output);
        blend.arguments(launch, y.view()).write(y.again())
    })
}

/// Queues what becomes of `sum_o dy[r, o] w_e[o, i]` for the rows of each group `e`: `dx[r, i]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other, or an extent is too large.
pub fn backward_input<N: Float>(
    stream: &Stream,
    at: Extents,
    dy: View<'_, N>,
    counts: &[usize],
    w: &[View<'_, N>],
    blend: Blend<'_, N>,
    mut dx: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let groups = with_rows(at, counts, w, dx.len(), dy.len());
    let extents = |group: &Group| (group.rows.len(), at.input);
    launches::<N>(stream, at, "grouped_backward_input", &groups, extents, |launch| {
        let launch = launch.read(dy).count(at.output).count(at.input);
        blend.arguments(launch, dx.view()).write(dx.again())
    })
}

/// Queues `dw_e[o, i] = sum_r dy[r, o] x[r, i]`, or `+=`, over the rows of each group `e`.
///
/// The sum is taken first, and then added. A group without rows is left as it is.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other, or an extent is too large.
pub fn backward_weight<N: Float>(
    stream: &Stream,
    at: Extents,
    dy: View<'_, N>,
    x: View<'_, N>,
    sums: Vec<Sum<'_>>,
) -> Result<(), DeviceError> {
    let group = |Sum { rows, dw, output }: Sum<'_>| {
        assert_eq!(dw.len(), at.output * at.input, "dw [output, input]");
        let lengths = (rows.end * at.output, rows.end * at.input);
        assert!(lengths.0 <= dy.len() && lengths.1 <= x.len(), "{rows:?} of dy and x");
        Group { at: dw.at(), rows, is_added: output == Output::Add }
    };
    let groups: Vec<Group> =
        sums.into_iter().map(group).filter(|group| !group.rows.is_empty()).collect();
    let extents = |_: &Group| (at.output, at.input);
    launches::<N>(stream, at, "grouped_backward_weight", &groups, extents, |launch| {
        launch.read(dy).count(at.output).read(x).count(at.input)
    })
}

/// The groups that have rows, once all lengths have been checked.
fn with_rows<N>(
    at: Extents,
    counts: &[usize],
    w: &[View<'_, N>],
    inputs: usize,
    outputs: usize,
) -> Vec<Group> {
    let (rows, size) = (counts.iter().sum::<usize>(), at.output * at.input);
    assert_eq!((inputs, outputs), (rows * at.input, rows * at.output), "rows of all groups");
    assert_eq!(w.len(), counts.len(), "a matrix for each group");
    assert!(w.iter().all(|w| w.len() == size), "w [{}, {}]", at.output, at.input);
    let mut end = 0;
    let groups = w.iter().zip(counts).map(|(w, count)| {
        let first = end;
        end += count;
        Group { at: w.at(), rows: first..end, is_added: false }
    });
    groups.filter(|group| !group.rows.is_empty()).collect()
}

/// Queues a kernel for groups whose products have so many rows and columns, with the arguments that
/// follow the table.
fn launches<N: Float>(
    stream: &Stream,
    at: Extents,
    kernel: &'static str,
    groups: &[Group],
    extents: impl Fn(&Group) -> (usize, usize),
    mut rest: impl FnMut(Launch<'_>) -> Launch<'_>,
) -> Result<(), DeviceError> {
    assert!(u32::try_from(at.input.max(at.output)).is_ok(), "{at:?}, expected below 2^32");
    let program = Program { source: Source::Grouped, format: N::FORMAT };
    let has_warpgroups = program.has_warpgroups(&stream.device().found().architecture());
    let block = if has_warpgroups { &OF_WARPGROUPS } else { &OF_WARPS };
    let short = |n: usize| u64::from(u32::try_from(n).expect("fewer than 2^32 rows and tiles"));
    for groups in groups.chunks(GROUPS) {
        let mut table = [0; GROUPS * WORDS];
        let mut end = 0;
        for (words, group) in table.chunks_exact_mut(WORDS).zip(groups) {
            let rows = &group.rows;
            words[0] = group.at;
            words[1] = short(rows.start) | short(rows.len()) << 32;
            words[2] = short(end) | u64::from(group.is_added) << 32;
            let (rows, columns) = extents(group);
            end += rows.div_ceil(block.tile.0) * columns.div_ceil(block.tile.1);
        }
        let launch = Launch::of::<N>(stream, Source::Grouped, kernel).words(&table);
        let launch = rest(launch.count(groups.len())).shared(block.bytes);
        launch.go((end, 1, 1), (block.threads, 1, 1))?;
    }
    Ok(())
}
