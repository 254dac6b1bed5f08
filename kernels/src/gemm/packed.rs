//! A right factor that is packed once and used many times, as weights are within a step.

use super::{
    Matrix, Right,
    isa::Isa,
    lines::Lines,
    walk::{Precision, pack},
};

/// A right factor `[depth, cols]` in panels.
#[derive(Debug)]
pub struct Packed {
    pub(super) isa: Isa,
    pub(super) precision: Precision,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) panels: Lines,
}

impl Packed {
    /// Packs a matrix. If it is of BF16, the left factors must be too.
    pub fn new(matrix: Matrix<'_>) -> Self {
        Packed::with(Isa::best(), matrix)
    }

    pub(super) fn with(isa: Isa, matrix: Matrix<'_>) -> Self {
        let precision = Precision::of(isa, matrix.is_bf16());
        let (rows, cols) = (matrix.layout.rows, matrix.layout.cols);
        Packed { isa, precision, rows, cols, panels: pack(isa, precision, matrix) }
    }

    /// The first rows and columns as a right factor.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn part(&self, rows: usize, cols: usize) -> Right<'_> {
        let fits = rows <= self.rows && cols <= self.cols;
        assert!(fits, "[{rows}, {cols}] of a packed [{}, {}]", self.rows, self.cols);
        Right::Packed { packed: self, rows, cols }
    }
}
