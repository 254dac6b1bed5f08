//! Matrix products `c = alpha a b` and `c += alpha a b` of strided matrices.
//!
//! The work is done by the `gemm` crate, on the calling thread. Equal calls give equal bits.

#[cfg(target_arch = "x86_64")]
#[cfg_attr(not(test), expect(dead_code, reason = "products of bf16 will be made of these blocks"))]
mod amx;
pub mod time;

use gemm::Parallelism;

/// A matrix to read, anywhere in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    layout: Layout,
}

/// A matrix to write.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    values: &'a mut [f32],
    layout: Layout,
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
        assert!(row_stride <= isize::MAX as usize);
        Layout { rows, cols, row_stride, col_stride: 1 }
    }
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows follow each other.
    ///
    /// # Panics
    ///
    /// If `values` is too short.
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// A matrix whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    ///
    /// If `values` is too short or the rows overlap.
    pub fn strided(values: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        Matrix { values, layout: Layout::checked(rows, cols, row_stride, values.len()) }
    }

    /// The same values with rows and columns exchanged; nothing moves.
    pub fn transposed(self) -> Self {
        let Layout { rows, cols, row_stride, col_stride } = self.layout;
        let layout =
            Layout { rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride };
        Matrix { layout, ..self }
    }
}

impl<'a> MatrixMut<'a> {
    /// A matrix whose rows follow each other.
    ///
    /// # Panics
    ///
    /// If `values` is too short.
    pub fn new(values: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// A matrix whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    ///
    /// If `values` is too short or the rows overlap.
    pub fn strided(values: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        let layout = Layout::checked(rows, cols, row_stride, values.len());
        MatrixMut { values, layout }
    }
}

/// `c = alpha a b` or `c += alpha a b`.
///
/// With no column in `a` the product is zero.
///
/// # Panics
///
/// If the extents do not fit each other.
pub fn product(c: MatrixMut<'_>, output: Output, alpha: f32, a: Matrix<'_>, b: Matrix<'_>) {
    let (rows, cols, depth) = (c.layout.rows, c.layout.cols, a.layout.cols);
    let fits = a.layout.rows == rows && b.layout.cols == cols && b.layout.rows == depth;
    assert!(fits, "[{rows}, {cols}] from {:?} and {:?}", a.layout, b.layout);
    if rows == 0 || cols == 0 {
        return;
    }
    let started = time::start();
    let add = output == Output::Add;
    // SAFETY: `Layout::checked` proved that every element of the three matrices lies within its
    // slice and that those of `c` are distinct; `c` is borrowed mutably, so it overlaps neither
    // `a` nor `b`; the assertion above proved that the extents agree. Strides fit an isize since
    // slices of more than isize::MAX bytes do not exist and larger strides were refused.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            depth,
            c.values.as_mut_ptr(),
            c.layout.col_stride as isize,
            c.layout.row_stride as isize,
            add,
            a.values.as_ptr(),
            a.layout.col_stride as isize,
            a.layout.row_stride as isize,
            b.values.as_ptr(),
            b.layout.col_stride as isize,
            b.layout.row_stride as isize,
            if add { 1.0 } else { 0.0 },
            alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
    time::stop(started);
}

/// `a b` in new memory, row-major.
///
/// # Panics
///
/// If the extents do not fit each other.
pub fn multiply(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let (rows, cols) = (a.layout.rows, b.layout.cols);
    let mut c = vec![0.0; rows * cols];
    product(MatrixMut::new(&mut c, rows, cols), Output::Write, 1.0, a, b);
    c
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::normal;

    fn random(key: u64, n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| normal(key, i)).collect()
    }

    /// The plain truth in f64.
    fn truth(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f64> {
        let sum = |i: usize, j: usize| {
            (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[x * n + j])).sum()
        };
        (0..m * n).map(|at| sum(at / n, at % n)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn products_are_right_for_any_extents(m in 0..70usize, n in 0..70usize, k in 0..70usize) {
            let (a, b) = (random(1, m * k), random(2, k * n));
            let mut c = vec![1.0; m * n];
            let (a_mk, b_kn) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            product(MatrixMut::new(&mut c, m, n), Output::Write, 2.0, a_mk, b_kn);
            product(MatrixMut::new(&mut c, m, n), Output::Add, 1.0, a_mk, b_kn);
            for (c, truth) in c.iter().zip(truth(m, n, k, &a, &b)) {
                prop_assert!((f64::from(*c) - 3.0 * truth).abs() < 1e-4 * (1.0 + truth.abs()));
            }
        }
    }

    #[test]
    fn transposed_and_strided_views_read_in_place() {
        // Columns 1..3 of a 2 x 4 matrix, times their own transpose.
        let a = [9.0, 1.0, 2.0, 9.0, 9.0, 3.0, 4.0, 9.0];
        let view = Matrix::strided(&a[1..], 2, 2, 4);
        let mut c = vec![7.0; 8];
        let out = MatrixMut::strided(&mut c[1..], 2, 2, 4);
        product(out, Output::Write, 1.0, view, view.transposed());
        assert_eq!(c, [7.0, 5.0, 11.0, 7.0, 7.0, 11.0, 25.0, 7.0]);
    }

    #[test]
    fn equal_calls_give_equal_bits_wherever_the_values_lie() {
        for (m, n, k) in [(64, 192, 768), (1, 64, 96), (33, 1, 17), (130, 70, 600)] {
            let (a, b) = (random(1, m * k + 3), random(2, k * n + 3));
            let run = |shift: usize| {
                let (mut moved_a, mut moved_b) = (vec![0.0; shift], vec![0.0; shift]);
                moved_a.extend(&a);
                moved_b.extend(&b);
                let mut c = vec![0.0; m * n];
                let (a, b) = (&moved_a[shift..], &moved_b[shift..]);
                let (a, b) = (Matrix::new(a, m, k), Matrix::new(b, k, n));
                product(MatrixMut::new(&mut c, m, n), Output::Write, 1.0, a, b);
                c.iter().map(|c| c.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(run(0), run(0));
            assert_eq!(run(0), run(1));
        }
    }

    #[test]
    #[should_panic(expected = "[3, 2] at row stride 2 in 5 values")]
    fn a_slice_that_is_too_short_is_refused() {
        Matrix::new(&[0.0; 5], 3, 2);
    }
}
