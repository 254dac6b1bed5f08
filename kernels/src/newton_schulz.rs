//! Newton-Schulz iteration: a matrix with all its singular values brought near one.
//!
//! Coefficients and order of Keller Jordan's Muon, as in Moonlight, arXiv:2502.16982, section 2.1.

use crate::{
    gemm::{Matrix, Output, product, symmetric_product, transposed},
    number::Number,
    reduce::{scaled, sum_of_squares},
};

/// `a`, `b` and `c` of `X <- a X + (b A + c A^2) X`, `A = X X^T`.
pub(crate) const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);

/// Added to the norm, so that a zero matrix stays zero.
const SMALLEST_NORM: f64 = 1e-7;

/// Returns the `[rows, cols]` matrix after `steps` quintic steps, with all products in format `N`.
///
/// With five steps, singular values between 0.01 and 1 of the norm end between 0.68 and 1.14.
/// A tall matrix is worked on as its transpose, which makes the products smaller. `A` and its
/// polynomial are symmetric, so half of them is computed.
pub fn newton_schulz<N: Number>(g: &[f32], rows: usize, cols: usize, steps: usize) -> Vec<f32> {
    let (n, m) = (rows.min(cols), rows.max(cols));
    let inverse = (1.0 / (sum_of_squares(g).sqrt() + SMALLEST_NORM)) as f32;
    let mut x: Vec<N> = vec![N::ZERO; n * m];
    scaled(&oriented(g, rows, cols), inverse, &mut x);
    let (mut gram, mut poly) = (vec![N::ZERO; n * n], vec![N::ZERO; n * n]);
    let mut next = x.clone();
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..steps {
        let x_nm = Matrix::of(N::values(&x), n, m, m);
        symmetric_product(&mut gram, Output::Write, 1.0, x_nm, x_nm.transposed());
        scaled(&gram, b, &mut poly);
        let gram = Matrix::of(N::values(&gram), n, n, n);
        symmetric_product(&mut poly, Output::Add, c, gram, gram);
        scaled(&x, a, &mut next);
        let poly = Matrix::of(N::values(&poly), n, n, n);
        product(N::matrix(&mut next, n, m, m), Output::Add, 1.0, poly, x_nm);
        std::mem::swap(&mut x, &mut next);
    }
    let mut wide = vec![0.0; n * m];
    scaled(&x, 1.0, &mut wide);
    if rows > cols { transposed(&wide, cols, rows) } else { wide }
}

fn oriented(g: &[f32], rows: usize, cols: usize) -> std::borrow::Cow<'_, [f32]> {
    if rows > cols { transposed(g, rows, cols).into() } else { g.into() }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::random::normal;

    /// A diagonal matrix keeps its singular vectors, so the map of the values can be read off.
    #[test]
    fn singular_values_end_in_the_known_band() {
        let n = 40;
        let sigma: Vec<f32> = (0..n).map(|i| 0.01_f32.powf(i as f32 / (n - 1) as f32)).collect();
        let norm = sigma.iter().map(|s| s * s).sum::<f32>().sqrt();
        let mut g = vec![0.0; n * n];
        sigma.iter().enumerate().for_each(|(i, s)| g[i * (n + 1)] = *s);
        let y = newton_schulz::<f32>(&g, n, n, 5);
        for (i, s) in sigma.iter().enumerate().filter(|(_, s)| **s / norm >= 0.01) {
            assert!((0.68..1.14).contains(&y[i * (n + 1)]), "{s}: {}", y[i * (n + 1)]);
        }
        let off = y.iter().enumerate().filter(|(at, _)| at % (n + 1) != 0);
        assert!(off.map(|(_, x)| x.abs()).fold(0.0, f32::max) == 0.0, "signs and vectors kept");
    }

    #[test]
    fn with_products_of_bf16_the_values_end_in_the_band_too() {
        let g: Vec<f32> = (0..48 * 100).map(|i| normal(5, i)).collect();
        let (exact, rough) =
            (newton_schulz::<f32>(&g, 48, 100, 5), newton_schulz::<bf16>(&g, 48, 100, 5));
        let norm = sum_of_squares(&exact).sqrt();
        let apart: Vec<f32> = exact.iter().zip(&rough).map(|(a, b)| a - b).collect();
        let apart = sum_of_squares(&apart).sqrt() / norm;
        assert!(apart < 0.06, "{apart}");
        // The rows of an orthogonal matrix have length one.
        for row in rough.chunks_exact(100) {
            assert!((0.6..1.3).contains(&sum_of_squares(row).sqrt()));
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_scale_and_zero_stays_zero() {
        let g: Vec<f32> = (0..24 * 40).map(|i| normal(3, i)).collect();
        let scaled: Vec<f32> = g.iter().map(|x| x * 1024.0).collect();
        let (a, b) =
            (newton_schulz::<f32>(&g, 24, 40, 5), newton_schulz::<f32>(&scaled, 24, 40, 5));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4));
        assert_eq!(newton_schulz::<f32>(&[0.0; 12], 3, 4, 5), [0.0; 12]);
    }

    #[test]
    fn a_tall_matrix_gives_the_transpose_of_the_flat_one() {
        let g: Vec<f32> = (0..50 * 20).map(|i| normal(4, i)).collect();
        let flat = newton_schulz::<f32>(&transposed(&g, 50, 20), 20, 50, 5);
        assert_eq!(newton_schulz::<f32>(&g, 50, 20, 5), transposed(&flat, 20, 50));
    }
}
