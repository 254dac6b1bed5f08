//! AdamW: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2.

use crate::vector::vectorised;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first and of the second moment.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decay of the weight, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Updates including this one, for the bias correction.
    pub step: u32,
    /// What the gradient is multiplied by before anything else, so that its norm is clipped.
    pub scale: f32,
}

impl Update {
    /// Learning rate and spread of the moments, both corrected for the bias, and what is kept of a
    /// weight.
    pub(crate) fn factors(&self) -> (f32, f32, f32) {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(f64::from(self.step));
        let rate = (f64::from(self.lr) / correction(self.betas.0)) as f32;
        let spread = (1.0 / correction(self.betas.1).sqrt()) as f32;
        (rate, spread, 1.0 - self.lr * self.weight_decay)
    }
}

vectorised! {
    /// Updates a weight and its two moments.
    ///
    /// ```text
    /// g = scale grad
    /// m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
    /// w = w (1 - lr decay) - lr * (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
    /// ```
    pub fn update(how: &Update, grad: &[f32], m: &mut [f32], v: &mut [f32], w: &mut [f32]) {
        let (b1, b2) = how.betas;
        let (rate, spread, keep) = how.factors();
        for (((grad, m), v), w) in grad.iter().zip(m).zip(v).zip(w) {
            let g = grad * how.scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *w = *w * keep - rate * *m / (v.sqrt() * spread + how.eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Update =
        Update { lr: 0.1, betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.1, step: 1, scale: 1.0 };

    #[test]
    fn the_first_step_is_the_learning_rate_against_the_sign() {
        let (mut m, mut v, mut w) = ([0.0; 2], [0.0; 2], [1.0, 1.0]);
        update(&HOW, &[1e-3, -50.0], &mut m, &mut v, &mut w);
        assert!((w[0] - 0.89).abs() < 1e-4 && (w[1] - 1.09).abs() < 1e-4, "{w:?}");
    }

    #[test]
    fn a_scale_has_the_bits_of_a_gradient_that_was_scaled_before() {
        let grad: Vec<f32> = (0..40).map(|i| (i as f32 - 20.0) * 0.1).collect();
        let run = |scale: f32, grad: &[f32]| {
            let (mut m, mut v, mut w) = ([0.5; 40], [0.25; 40], [1.0; 40]);
            update(&Update { scale, step: 3, ..HOW }, grad, &mut m, &mut v, &mut w);
            (m, v, w)
        };
        let scaled: Vec<f32> = grad.iter().map(|g| g * 0.37).collect();
        assert_eq!(run(0.37, &grad), run(1.0, &scaled));
    }

    #[test]
    fn a_zero_gradient_only_decays() {
        let (mut m, mut v, mut w) = ([0.0], [0.0], [2.0]);
        update(&HOW, &[0.0], &mut m, &mut v, &mut w);
        assert_eq!(w, [2.0 * (1.0 - 0.1 * 0.1)]);
    }
}
