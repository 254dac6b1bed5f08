//! The exponential as a polynomial, because softmax and SiLU spend most of their time in it.
//!
//! `exp(x) = 2^n * exp(r)` with `n = round(x / ln 2)` and `|r| <= ln 2 / 2`; the polynomial is
//! that of Moshier's Cephes library. The relative error is below 2e-7 (a test measures it).
//! Products and sums are fused, which rounds once and so the same on every processor: those
//! without the instruction call a slow function.

/// Beyond this, `2^n` is infinity and everything is.
const LARGEST: f32 = 89.0;
/// Below this, `2^n` is written as zero: results would be subnormal.
const SMALLEST: f32 = -88.0;
/// Adding it rounds a small float to a whole number, which then stands in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// `ln 2` in two parts; products of the first with whole numbers are exact.
const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);

/// `e^x` within 2e-7 of its value; 0 below -87.7 and infinity above 88.4. NaN stays NaN.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the coefficients as published")]
pub fn exp(x: f32) -> f32 {
    // Written as comparisons, and not as clamp, so that NaN passes through.
    let x = if x > LARGEST { LARGEST } else { x };
    let x = if x < SMALLEST { SMALLEST } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = n.mul_add(-LN_2.1, n.mul_add(-LN_2.0, x));
    let mut p = 1.987_569_150e-4;
    p = r.mul_add(p, 1.398_199_950_7e-3);
    p = r.mul_add(p, 8.333_451_907_3e-3);
    p = r.mul_add(p, 4.166_579_589_4e-2);
    p = r.mul_add(p, 1.666_666_545_9e-1);
    p = r.mul_add(p, 5.000_000_120_1e-1);
    // Of -127 and of 128 the exponent is that of zero and of infinity.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    ((p * r).mul_add(r, r) + 1.0) * power
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relative_error_is_below_2e_7() {
        let mut worst = 0.0_f64;
        for i in -873_000..=883_000 {
            let x = i as f32 * 1e-4;
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / truth - 1.0).abs());
        }
        assert!(worst < 2e-7, "{worst:e}");
    }

    #[test]
    fn the_ends_are_safe() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!((sigmoid(-1e4), sigmoid(0.0), sigmoid(1e4)), (0.0, 0.5, 1.0));
    }
}
