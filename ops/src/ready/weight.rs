//! A weight `[output, input]` that is packed once as the right factor of products.

use half::bf16;
use kernels::gemm::{Matrix, MatrixMut, Output, Packed, Values, product};

use crate::{DType, Tensor};

/// A packed matrix, and in which format its left factors must be.
#[derive(Debug)]
pub struct Weight {
    packed: Packed,
    dtype: DType,
    input: usize,
    output: usize,
}

impl Weight {
    /// Packs `w [o, i]`, so that rows `[t, i]` become rows `[t, o]`.
    pub fn new(w: &Tensor) -> Self {
        let (output, input) = (w.shape()[0], w.shape()[1]);
        Weight::packed(w, 0, input, output, false)
    }

    /// Packs some rows of a tensor, from the given one on: `[o, i]`, or `[i, o]` as they stand.
    pub(super) fn packed(
        w: &Tensor,
        first: usize,
        input: usize,
        output: usize,
        as_it_stands: bool,
    ) -> Self {
        let (rows, cols) = if as_it_stands { (input, output) } else { (output, input) };
        let w = w.rows(first..first + rows);
        let values = match w.dtype() {
            DType::Bf16 => Values::Bf16(bytemuck::cast_slice(w.bytes())),
            _ => Values::F32(bytemuck::cast_slice(w.bytes())),
        };
        let matrix = Matrix::of(values, rows, cols, cols);
        let matrix = if as_it_stands { matrix } else { matrix.transposed() };
        Weight { packed: Packed::new(matrix), dtype: w.dtype(), input, output }
    }

    /// Width of a row before.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Width of a row after.
    pub fn output(&self) -> usize {
        self.output
    }

    /// Writes `y [t, o]` for `x [t, i]`.
    pub fn multiply(&self, x: &[f32], y: &mut Vec<f32>) {
        y.resize(x.len() / self.input.max(1) * self.output, 0.0);
        self.multiply_into(x, y);
    }

    /// As [`multiply`](Self::multiply), into memory of the right length.
    pub(super) fn multiply_into(&self, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.input.max(1);
        self.multiply_strided(rows, Left::new(x, self.dtype).from(0, self.input), y, self.output);
    }

    /// As [`multiply`](Self::multiply), where rows begin so many values apart.
    pub(super) fn multiply_strided(
        &self,
        rows: usize,
        (x, x_stride): (Values<'_>, usize),
        y: &mut [f32],
        y_stride: usize,
    ) {
        let x = Matrix::of(x, rows, self.input, x_stride);
        product(
            MatrixMut::strided(y, rows, self.output, y_stride),
            Output::Write,
            1.0,
            x,
            &self.packed,
        );
    }
}

/// Left factors in the format of the weights.
///
/// What is not yet rounded to BF16 is so here; as a rule it is.
pub(super) struct Left<'a> {
    wide: &'a [f32],
    narrow: Option<Vec<bf16>>,
}

impl<'a> Left<'a> {
    pub(super) fn new(wide: &'a [f32], dtype: DType) -> Self {
        let narrow = (dtype == DType::Bf16).then(|| kernels::cast::narrow(wide));
        Left { wide, narrow }
    }

    /// All values from the given one on, with the distance of rows.
    pub(super) fn from(&self, first: usize, stride: usize) -> (Values<'_>, usize) {
        let values = match &self.narrow {
            Some(narrow) => Values::Bf16(&narrow[first..]),
            None => Values::F32(&self.wide[first..]),
        };
        (values, stride)
    }
}
