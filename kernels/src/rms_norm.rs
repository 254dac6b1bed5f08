//! RMSNorm: `y[t, d] = x[t, d] * rstd[t] * w[d]`, `rstd[t] = 1 / sqrt(mean_d(x[t, d]^2) + eps)`.

use crate::{number::Number, reduce::sum_of, vector::vectorised};

vectorised! {
    /// Writes `y` and the inverse divisor of each token; the width is that of `w`.
    pub fn forward<N: Number>(x: &[N], w: &[f32], eps: f32, y: &mut [N], rstd: &mut [f32]) {
        let d = w.len();
        for ((x, y), rstd) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(rstd) {
            *rstd = 1.0 / (sum_of(x, x, |a, b| a * b) / d as f32 + eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = N::nearest(x.wide() * *rstd * w);
            }
        }
    }

    /// Writes `dx = rstd * (w dy - x rstd^2 mean_d(w dy x))`.
    pub fn backward_input<N: Number>(
        x: &[N],
        w: &[f32],
        rstd: &[f32],
        dy: &[N],
        dx: &mut [N],
    ) {
        let d = w.len();
        let mut scaled = vec![0.0; d];
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d));
        for (((x, dy), dx), rstd) in rows.zip(rstd) {
            for ((scaled, dy), w) in scaled.iter_mut().zip(dy).zip(w) {
                *scaled = w * dy.wide();
            }
            let along = sum_of(x, &scaled, |a, b| a * b) / d as f32 * rstd * rstd;
            for ((dx, x), scaled) in dx.iter_mut().zip(x).zip(&scaled) {
                *dx = N::nearest((scaled - x.wide() * along) * rstd);
            }
        }
    }

    /// Adds `sum_t dy x rstd` to `dw`, tokens in order.
    pub fn backward_weight<N: Number>(x: &[N], rstd: &[f32], dy: &[N], dw: &mut [f32]) {
        let d = dw.len();
        for ((x, dy), rstd) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(rstd) {
            for ((dw, x), dy) in dw.iter_mut().zip(x).zip(dy) {
                *dw += dy.wide() * (x.wide() * rstd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gets_the_root_mean_square_of_the_gain() {
        let (mut y, mut rstd) = ([0.0; 4], [0.0; 2]);
        forward(&[3.0, -3.0, 0.0, 0.0], &[1.0, 2.0], 0.0_f32.max(1e-12), &mut y, &mut rstd);
        assert!((y[0] - 1.0).abs() < 1e-6 && (y[1] + 2.0).abs() < 1e-6);
        assert_eq!(y[2..], [0.0, 0.0], "an all-zero token stays finite");
    }
}
