//! Some rows of a left factor, or some columns of a right one, over some of the depth: what is
//! packed at a time.

use std::ops::Range;

use super::{Layout, Matrix, Values};

/// Lines of equal depth; line `i` at depth `k` is `values[i * line_stride + k * depth_stride]`.
///
/// One of the two strides is 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip<'a> {
    pub(super) values: Values<'a>,
    pub(super) lines: usize,
    pub(super) depth: usize,
    way: Way,
    stride: usize,
}

/// What is next to each other in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// The numbers of a line: `values[line * stride + depth]`.
    Along,
    /// The lines: `values[depth * stride + line]`.
    Across,
}

impl<'a> Strip<'a> {
    /// Some rows of a left factor `[rows, depth]`, over a part of the depth.
    pub(super) fn of_rows(a: &Matrix<'a>, rows: Range<usize>, depth: Range<usize>) -> Self {
        let Layout { row_stride, col_stride, .. } = a.layout;
        let (way, stride) =
            if col_stride == 1 { (Way::Along, row_stride) } else { (Way::Across, col_stride) };
        let first = rows.start * row_stride + depth.start * col_stride;
        let first = if depth.is_empty() { 0 } else { first };
        Strip { values: a.values.from(first), lines: rows.len(), depth: depth.len(), way, stride }
    }

    /// Some columns of a right factor `[depth, cols]`, over a part of the depth.
    pub(super) fn of_cols(b: &Matrix<'a>, cols: Range<usize>, depth: Range<usize>) -> Self {
        Self::of_rows(&b.transposed(), cols, depth)
    }

    /// What is next to each other.
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Where the numbers of a line (or the lines at a depth) begin.
    pub(super) fn at(&self, outer: usize) -> usize {
        outer * self.stride
    }

    /// Distance of neighbouring lines (or depths), in numbers.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}
