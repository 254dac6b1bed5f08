//! Between BF16 and F32.

use half::bf16;

use crate::vector::vectorised;

/// The number as it is; exact.
#[inline(always)]
pub(crate) fn widened(narrow: bf16) -> f32 {
    f32::from_bits(u32::from(narrow.to_bits()) << 16)
}

/// The nearest number, of two the even one; infinities and NaN stay what they are.
#[inline(always)]
pub(crate) fn rounded(wide: f32) -> bf16 {
    let bits = wide.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    bf16::from_bits((if wide.is_nan() { quiet } else { rounded }) as u16)
}

vectorised! {
    /// Widens; exact.
    pub fn widen(narrow: &[bf16], wide: &mut [f32]) {
        for (wide, narrow) in wide.iter_mut().zip(narrow) {
            *wide = widened(*narrow);
        }
    }

    /// Rounds to nearest, ties to even; infinities and NaN stay what they are.
    pub fn narrow(wide: &[f32]) -> Vec<bf16> {
        let mut narrow = Vec::with_capacity(wide.len());
        for (narrow, wide) in narrow.spare_capacity_mut()[..wide.len()].iter_mut().zip(wide) {
            narrow.write(rounded(*wide));
        }
        // SAFETY: both are as long, so each element was written.
        unsafe { narrow.set_len(wide.len()) };
        narrow
    }

    /// Rounds as [`narrow`] does, in place.
    pub fn round(values: &mut [f32]) {
        for value in values {
            *value = widened(rounded(*value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_with_the_half_crate() {
        let special =
            [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-40, 1.0 + 1.0 / 256.0];
        let random = (0..50_000).map(|i| f32::from_bits(crate::random::bits(9, i) as u32));
        let mut wide: Vec<f32> =
            special.into_iter().chain(random.filter(|x| !x.is_nan())).collect();
        let rounded = narrow(&wide);
        let mut back = vec![0.0; wide.len()];
        widen(&rounded, &mut back);
        for ((wide, rounded), back) in wide.iter().zip(&rounded).zip(&back) {
            assert_eq!(rounded.to_bits(), bf16::from_f32(*wide).to_bits(), "{wide}");
            assert_eq!(back.to_bits(), rounded.to_f32().to_bits());
        }
        round(&mut wide);
        assert!(wide.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn nan_stays_nan() {
        assert!(narrow(&[f32::from_bits(0x7F80_0001)])[0].is_nan());
    }
}
