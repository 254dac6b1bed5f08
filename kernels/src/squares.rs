//! Sums of squares whose bits do not depend on how a tensor is cut by rows.
//!
//! Sums of floats depend on their order, so slices of a gradient that live on different ranks
//! could not give the norm of the whole one. Here the squares of each row are summed in F32, and
//! these sums are added as whole numbers of the smallest F32, which any order gives the same.

use crate::reduce::dot;

/// Bits of the sum: 277 of the largest F32, and room for as many rows as anybody has.
pub(crate) const WORDS: usize = 5;

/// Elements of a row that are summed in F32 at a time.
pub(crate) const PART: usize = 4096;

/// The exact sum of the F32 sums of the squares of rows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Squares {
    /// The sum in units of `2^-149`, lowest word first.
    words: [u64; WORDS],
    /// Whether a row's sum was no finite number.
    is_broken: bool,
}

impl Squares {
    /// Sums the squares of rows of so many columns.
    pub fn of_rows(values: &[f32], columns: usize) -> Self {
        let mut sum = Squares::default();
        for row in values.chunks(columns.max(1)) {
            row.chunks(PART).for_each(|part| sum.push(dot(part, part)));
        }
        sum
    }

    /// What a device has summed: the words, lowest first, then 1 if a row's sum was no finite
    /// number.
    pub fn from_words(all: [u64; WORDS + 1]) -> Self {
        let [words @ .., is_broken] = all;
        Squares { words, is_broken: is_broken != 0 }
    }

    /// The sum in the form that [`from_words`](Self::from_words) takes.
    pub fn to_words(self) -> [u64; WORDS + 1] {
        let mut all = [u64::from(self.is_broken); WORDS + 1];
        all[..WORDS].copy_from_slice(&self.words);
        all
    }

    /// Adds the sum of other rows.
    pub fn add(&mut self, other: &Squares) {
        self.is_broken |= other.is_broken;
        for (at, word) in other.words.into_iter().enumerate() {
            self.carry(at, word);
        }
    }

    /// The sum; infinite if any row's was no finite number.
    pub fn value(&self) -> f64 {
        if self.is_broken {
            return f64::INFINITY;
        }
        let word = 2.0_f64.powi(64);
        let sum = self.words.iter().rev().fold(0.0, |sum, &low| sum * word + low as f64);
        sum * 2.0_f64.powi(-149)
    }

    /// Adds a number that is not negative: `mantissa * 2^shift` units.
    fn push(&mut self, number: f32) {
        if !number.is_finite() {
            self.is_broken = true;
            return;
        }
        let bits = number.to_bits();
        let (exponent, fraction) = (bits >> 23 & 0xff, u128::from(bits & 0x7f_ffff));
        // The smallest exponent stands for numbers without the leading one.
        let mantissa = if exponent == 0 { fraction } else { fraction | 1 << 23 };
        let shift = exponent.max(1) as usize - 1;
        let spread = mantissa << (shift % 64);
        self.carry(shift / 64, spread as u64);
        self.carry(shift / 64 + 1, (spread >> 64) as u64);
    }

    /// Adds to a word and carries on.
    fn carry(&mut self, at: usize, add: u64) {
        let mut add = add;
        for word in self.words.iter_mut().skip(at) {
            let (sum, is_over) = word.overflowing_add(add);
            *word = sum;
            if !is_over {
                return;
            }
            add = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_cut_by_rows_in_any_order_gives_the_same_bits(
            rows in prop::collection::vec(prop::array::uniform3(-1e12..1e12f32), 1..40),
            cut in 0.0..1.0f64,
        ) {
            let all: Vec<f32> = rows.iter().flatten().map(|x| x * x * x * 1e-20).collect();
            let whole = Squares::of_rows(&all, 3);
            let (top, rest) = all.split_at((cut * rows.len() as f64) as usize * 3);
            let mut sum = Squares::of_rows(rest, 3);
            sum.add(&Squares::of_rows(top, 3));
            prop_assert_eq!(sum, whole);
            let plain: f64 = all.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            let apart = (whole.value() - plain).abs();
            prop_assert!(apart <= 1e-6 * plain + 1e-30, "{} {plain}", whole.value());
        }
    }

    #[test]
    fn numbers_of_all_sizes_are_added_exactly() {
        let mut sum = Squares::default();
        for number in [f32::MAX, f32::from_bits(1), 1.0, f32::MIN_POSITIVE, 0.0] {
            sum.push(number);
        }
        assert_eq!(sum.value(), f64::from(f32::MAX), "the others are far below its last bit");
        assert_eq!(sum.words[0], 1 + (1 << 23), "the smallest number, and the smallest normal one");
        let mut ones = Squares::default();
        (0..1000).for_each(|_| ones.push(1.0));
        assert_eq!(ones.value(), 1000.0);
        let mut many = Squares::default();
        (0..3).for_each(|_| many.push(f32::MAX));
        assert_eq!(many.value(), 3.0 * f64::from(f32::MAX));
        assert_eq!(Squares::of_rows(&[3.0, 4.0, 12.0], 1).value(), 169.0);
        assert_eq!(Squares::of_rows(&[], 4).value(), 0.0);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
            let mut sum = Squares::of_rows(&[1.0], 1);
            sum.add(&Squares::of_rows(&[0.0, bad], 2));
            assert_eq!(sum.value(), f64::INFINITY, "the square of {bad}");
        }
    }
}
