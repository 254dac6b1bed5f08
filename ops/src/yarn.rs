//! Rotary frequencies, and how YaRN stretches them for longer contexts.
//!
//! Peng et al., arXiv:2309.00071, section 3; the rounding of the ramp's ends and the two growth
//! factors are those of DeepSeek's released code, which the weights were trained with.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// How YaRN stretches the rotary frequencies; fields as in `rope_scaling` of released models.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Yarn {
    /// New context over the original one.
    pub factor: f64,
    /// Context the frequencies were first trained with, in tokens.
    pub original: usize,
    /// Pairs that turn more often than this over the original context stay as they are.
    pub beta_fast: f64,
    /// Pairs that turn less often than this are slowed by `factor`.
    pub beta_slow: f64,
    /// Growth of cosine and sine.
    pub mscale: f64,
    /// Growth of the softmax scale, which divides that of cosine and sine.
    pub mscale_all_dim: f64,
}

impl Yarn {
    /// The first number that means nothing: its field in a model, its value, what was expected.
    pub fn out_of_range(&self) -> Option<(&'static str, f64, &'static str)> {
        let at_least = |value: f64, least: f64| value.is_finite() && value >= least;
        let above_zero = |value: f64| value.is_finite() && value > 0.0;
        let (factor, original) = (self.factor, self.original as f64);
        let (fast, slow) = (self.beta_fast, self.beta_slow);
        let (scale, all) = (self.mscale, self.mscale_all_dim);
        let numbers = [
            ("yarn.factor", factor, at_least(factor, 1.0), "1 or more"),
            ("yarn.original", original, at_least(original, 1.0), "1 or more"),
            ("yarn.beta_fast", fast, above_zero(fast), "more than 0"),
            ("yarn.beta_slow", slow, above_zero(slow), "more than 0"),
            ("yarn.mscale", scale, at_least(scale, 0.0), "0 or more"),
            ("yarn.mscale_all_dim", all, at_least(all, 0.0), "0 or more"),
        ];
        let wrong = numbers.into_iter().find(|(_, _, is_right, _)| !is_right);
        wrong.map(|(field, got, _, expected)| (field, got, expected))
    }

    /// `m(c) = 0.1 c ln(factor) + 1`, or 1 if nothing is stretched.
    fn growth(&self, mscale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 }
    }

    /// Factor of the softmax scale, `m(mscale_all_dim)^2`.
    pub fn scale_growth(&self) -> f64 {
        self.growth(self.mscale_all_dim).powi(2)
    }

    /// Factor of cosine and sine, `m(mscale) / m(mscale_all_dim)`.
    pub fn magnitude(&self) -> f64 {
        self.growth(self.mscale) / self.growth(self.mscale_all_dim)
    }

    /// Pairs before the first stay as they are, those from the second on are slowed fully.
    fn ramp(&self, rope: usize, theta: f64) -> (f64, f64) {
        let pair = |turns: f64| {
            rope as f64 * (self.original as f64 / (turns * TAU)).ln() / (2.0 * theta.ln())
        };
        let low = pair(self.beta_fast).floor().max(0.0);
        let high = pair(self.beta_slow).ceil().min(rope as f64 - 1.0);
        (low, if high == low { high + 0.001 } else { high })
    }
}

/// Radians per position of each pair: `theta^(-2i / rope)`, stretched.
pub(crate) fn frequencies(rope: usize, theta: f64, yarn: Option<&Yarn>) -> Vec<f64> {
    let plain = |pair: usize| theta.powf(-2.0 * pair as f64 / rope as f64);
    let Some(yarn) = yarn else { return (0..rope / 2).map(plain).collect() };
    let (low, high) = yarn.ramp(rope, theta);
    let stretched = |pair: usize| {
        let slowed = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
        plain(pair) * (slowed / yarn.factor + 1.0 - slowed)
    };
    (0..rope / 2).map(stretched).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the released Kimi K2 configuration.
    const K2: Yarn = Yarn {
        factor: 32.0,
        original: 4096,
        beta_fast: 1.0,
        beta_slow: 1.0,
        mscale: 1.0,
        mscale_all_dim: 1.0,
    };

    #[test]
    fn k2_slows_pairs_from_20_on_and_leaves_the_others() {
        assert_eq!(K2.ramp(64, 50_000.0), (19.0, 20.0));
        assert_eq!(Yarn { beta_fast: 32.0, ..K2 }.ramp(64, 50_000.0), (8.0, 20.0));
        let (plain, slow) = (frequencies(64, 50_000.0, None), frequencies(64, 50_000.0, Some(&K2)));
        assert_eq!((plain.len(), plain[0]), (32, 1.0));
        assert_eq!(plain[..20], slow[..20]);
        assert!(plain[20..].iter().zip(&slow[20..]).all(|(a, b)| (a / b - 32.0).abs() < 1e-9));
    }

    #[test]
    fn numbers_that_stretch_nothing_are_told() {
        assert_eq!(K2.out_of_range(), None);
        let field = |yarn: Yarn| yarn.out_of_range().map(|(field, ..)| field);
        assert_eq!(field(Yarn { factor: 0.5, ..K2 }), Some("yarn.factor"));
        assert_eq!(field(Yarn { original: 0, ..K2 }), Some("yarn.original"));
        assert_eq!(field(Yarn { beta_slow: f64::NAN, ..K2 }), Some("yarn.beta_slow"));
        assert_eq!(field(Yarn { mscale: -1.0, ..K2 }), Some("yarn.mscale"));
    }

    #[test]
    fn k2_scales_its_softmax_by_0_1308608() {
        assert_eq!(K2.magnitude(), 1.0);
        let attention = crate::MlaAttention {
            heads: 64,
            nope: 128,
            rope: 64,
            value: 128,
            rope_theta: 50_000.0,
            yarn: Some(K2),
        };
        assert!((attention.scale() - 0.130_860_8).abs() < 1e-8);
    }
}
