//! Matrix products `c = alpha a b` and `c += alpha a b` of strided matrices, in F32 and BF16.
//!
//! Two matrices of BF16 are multiplied as such and summed in F32; if either is F32, the other is
//! widened. Every element of `c` is one sum over the depth in rising order, wherever its row and
//! column stand and however many others there are, so a row's bits do not depend on its
//! neighbours. They do depend on the processor: see [`isa`].
//!
//! `b` is packed into panels of 32 columns, `a` into blocks of as many rows as the registers hold;
//! `walk` goes through both, `wide`, `dot` and `amx` multiply a block by a panel.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dot;
pub mod isa;
mod lines;
mod packed;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod strip;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;
pub mod time;
mod transpose;
mod walk;
mod wide;

use std::{mem::MaybeUninit, ops::Range};

use half::bf16;

pub use self::packed::Packed;
pub(crate) use self::transpose::transposed;
use self::{isa::Isa, walk::Area};
use crate::number::Number;

/// Numbers of a matrix in the format they have.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// The upper halves of such.
    Bf16(&'a [bf16]),
}

/// A matrix to read, anywhere in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: Values<'a>,
    layout: Layout,
}

/// A matrix to write.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    values: ValuesMut<'a>,
    layout: Layout,
}

/// Numbers to write; new ones can only be written, not added to.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// The upper halves of such.
    Bf16(&'a mut [bf16]),
    /// Single precision in new memory.
    NewF32(&'a mut [MaybeUninit<f32>]),
    /// The upper halves of such in new memory.
    NewBf16(&'a mut [MaybeUninit<bf16>]),
}

/// The right factor of a product.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// To be packed for this product alone.
    Plain(Matrix<'a>),
    /// Packed before, of which the first rows and columns count.
    Packed {
        /// All of it.
        packed: &'a Packed,
        /// Depth of the product.
        rows: usize,
        /// Columns of the product.
        cols: usize,
    },
}

/// What happens to the values that stand in the output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Output {
    /// They are overwritten.
    Write,
    /// The product is added to them.
    Add,
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Layout {
    /// Every element lies within `len`, and no two in the same place.
    fn checked(rows: usize, cols: usize, row_stride: usize, len: usize) -> Self {
        assert!(cols <= row_stride || rows <= 1, "rows of {cols} overlap at stride {row_stride}");
        let end = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols };
        assert!(end <= len, "[{rows}, {cols}] at row stride {row_stride} in {len} values");
        Layout { rows, cols, row_stride, col_stride: 1 }
    }
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        }
    }
}

impl<'a> Values<'a> {
    /// All values from the given one on.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn from(self, first: usize) -> Self {
        match self {
            Values::F32(values) => Values::F32(&values[first..]),
            Values::Bf16(values) => Values::Bf16(&values[first..]),
        }
    }
}

impl<'a> Matrix<'a> {
    /// A matrix of F32 whose rows follow each other.
    ///
    /// # Panics
    ///
    /// If `values` is too short.
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// A matrix of F32 whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    ///
    /// If `values` is too short or the rows overlap.
    pub fn strided(values: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self::of(Values::F32(values), rows, cols, row_stride)
    }

    /// A matrix of either format whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    ///
    /// If `values` is too short or the rows overlap.
    pub fn of(values: Values<'a>, rows: usize, cols: usize, row_stride: usize) -> Self {
        Matrix { values, layout: Layout::checked(rows, cols, row_stride, values.len()) }
    }

    /// The same values with rows and columns exchanged; nothing moves.
    pub fn transposed(self) -> Self {
        let Layout { rows, cols, row_stride, col_stride } = self.layout;
        let layout =
            Layout { rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride };
        Matrix { layout, ..self }
    }

    /// Some of its rows.
    ///
    /// # Panics
    ///
    /// If they are not all there.
    pub fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.layout.rows, "{rows:?} of the rows");
        let first = if rows.is_empty() { 0 } else { rows.start * self.layout.row_stride };
        let layout = Layout { rows: rows.len(), ..self.layout };
        Matrix { values: self.values.from(first), layout }
    }

    fn is_bf16(&self) -> bool {
        matches!(self.values, Values::Bf16(_))
    }
}

impl<'a> MatrixMut<'a> {
    /// A matrix of F32 whose rows follow each other.
    ///
    /// # Panics
    ///
    /// If `values` is too short.
    pub fn new(values: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// A matrix of F32 whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    ///
    /// If `values` is too short or the rows overlap.
    pub fn strided(values: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let layout = Layout::checked(rows, cols, row_stride, values.len());
        MatrixMut { values: ValuesMut::F32(values), layout }
    }

    /// A matrix of BF16 whose rows begin `row_stride` values apart; products are rounded once,
    /// to nearest even.
    ///
    /// # Panics
    ///
    /// If `values` is too short or the rows overlap.
    pub fn rounded(values: &'a mut [bf16], rows: usize, cols: usize, row_stride: usize) -> Self {
        let layout = Layout::checked(rows, cols, row_stride, values.len());
        MatrixMut { values: ValuesMut::Bf16(values), layout }
    }
}

impl<'a> From<Matrix<'a>> for Right<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Right::Plain(matrix)
    }
}

impl<'a> From<&'a Packed> for Right<'a> {
    fn from(packed: &'a Packed) -> Self {
        packed.part(packed.rows, packed.cols)
    }
}

impl Right<'_> {
    /// Rows and columns.
    fn extents(&self) -> (usize, usize) {
        match self {
            Right::Plain(matrix) => (matrix.layout.rows, matrix.layout.cols),
            Right::Packed { rows, cols, .. } => (*rows, *cols),
        }
    }
}

/// `c = alpha a b` or `c += alpha a b`.
///
/// With no column in `a` the product is zero.
///
/// # Panics
///
/// If the extents do not fit each other.
pub fn product<'b>(
    c: MatrixMut<'_>,
    output: Output,
    alpha: f32,
    a: Matrix<'_>,
    b: impl Into<Right<'b>>,
) {
    let started = time::start();
    walk::product(Isa::best(), Area::Whole, c, output, alpha, a, b.into());
    time::stop(started);
}

/// Adds `a b` to the rows of a sum that begin at element `at`, or appends them where it ends there.
///
/// So a sum begins with its first product, and nobody writes zeros before it. A product is the
/// same whether it is written or added to zero, but for a zero below zero.
///
/// # Panics
///
/// If the sum neither ends at `at` nor has all of the rows, or the extents do not fit each other.
pub fn accumulate(sum: &mut Vec<f32>, at: usize, a: Matrix<'_>, b: Matrix<'_>) {
    let (rows, cols) = (a.layout.rows, b.layout.cols);
    if sum.len() > at {
        return product(MatrixMut::new(&mut sum[at..], rows, cols), Output::Add, 1.0, a, b);
    }
    assert_eq!(sum.len(), at, "a sum goes on where it ends");
    sum.reserve(rows * cols);
    let values = ValuesMut::NewF32(&mut sum.spare_capacity_mut()[..rows * cols]);
    let layout = Layout::checked(rows, cols, cols, rows * cols);
    product(MatrixMut { values, layout }, Output::Write, 1.0, a, b);
    // SAFETY: a product that is written writes each of its elements, which follow those before.
    unsafe { sum.set_len(at + rows * cols) };
}

/// As [`product`], of which the caller knows that it is symmetric: half of the work, the same bits.
///
/// # Panics
///
/// If the extents do not fit each other or the product is not square.
pub fn symmetric_product<N: Number>(
    c: &mut [N],
    output: Output,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    let started = time::start();
    let n = a.layout.rows;
    let half = N::matrix(c, n, n, n);
    walk::product(Isa::best(), Area::Lower, half, output, alpha, a, b.into());
    transpose::mirror(c, n);
    time::stop(started);
}

/// `a b` in new memory, row-major.
///
/// # Panics
///
/// If the extents do not fit each other.
pub fn multiply<'b, N: Number>(a: Matrix<'_>, b: impl Into<Right<'b>>) -> Vec<N> {
    let b = b.into();
    multiply_grouped(a, &[a.layout.rows], b.extents().1, |_| b)
}

/// The rows of each group times the group's own factor, in new memory: `[rows, cols]`.
///
/// `counts` are the rows of each group, one after the other; a group without rows has no product.
///
/// # Panics
///
/// If the counts do not sum up to the rows, or the extents do not fit each other.
pub fn multiply_grouped<'b, N: Number>(
    a: Matrix<'_>,
    counts: &[usize],
    cols: usize,
    factor: impl Fn(usize) -> Right<'b>,
) -> Vec<N> {
    let rows = a.layout.rows;
    assert_eq!(counts.iter().sum::<usize>(), rows, "rows of all groups");
    let mut c: Vec<N> = Vec::with_capacity(rows * cols);
    let mut first = 0;
    for (group, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let own = &mut c.spare_capacity_mut()[first * cols..][..count * cols];
        let layout = Layout::checked(count, cols, cols, own.len());
        let c = MatrixMut { values: N::new_values(own), layout };
        product(c, Output::Write, 1.0, a.rows(first..first + count), factor(group));
        first += count;
    }
    // SAFETY: the groups' rows are all rows, as asserted, and a product that is written writes
    // each of its elements.
    unsafe { c.set_len(rows * cols) };
    c
}
