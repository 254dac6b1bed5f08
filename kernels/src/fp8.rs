//! Activations stored in FP8: codes of E4M3, and one F32 scale for each tile of 1 x 128.
//!
//! ```text
//! scale[r, j] = max(max_i |x[r, 128 j + i]| / 448, 2^-126)
//! code[r, c]  = the number of E4M3 nearest to x[r, c] / scale[r, c / 128], of two the even one
//! ```
//!
//! Kimi K2, arXiv:2507.20534, section 2.4.3; tiles as in DeepSeek-V3, arXiv:2412.19437, section
//! 3.3.2. For storage alone: nothing is computed with codes. E4M3, arXiv:2209.05433, section 3, has
//! a sign, 4 bits of exponent of bias 7 and 3 of mantissa; its largest number is 448, the codes
//! 0x7F and 0xFF are NaN, and it has no infinities. So an element of at least `2^-6 scale` is off
//! by at most a seventeenth of itself, a smaller one by at most `2^-10 scale`.
//!
//! A tile with a NaN or an infinity comes back as NaN, all of it, so that training that diverged
//! is not hidden. The least scale keeps quotients and their errors finite where all of a tile is
//! below 5.3e-36; a tile of zeros has it, too. Finite elements come back finite.

use crate::{number::Number, vector::vectorised};

/// Elements of a tile.
pub const TILE: usize = 128;

/// Tiles whose scales are found before their codes: the joining of a tile's maxima and its division
/// are waited for once, and the elements are still in the nearest cache.
const TOGETHER: usize = 8;

/// Largest number of E4M3.
pub const LARGEST: f32 = 448.0;

/// NaN in E4M3.
const NAN: u8 = 0x7F;

/// Parts of an F32.
const SIGN: u32 = 1 << 31;
const EXPONENT: u32 = 0xFF << MANTISSA_BITS;
const MANTISSA_BITS: u32 = 23;

/// Bits of an F32's mantissa that E4M3 does not have.
const DROPPED: u32 = MANTISSA_BITS - 3;

/// Difference of the two formats' biases.
const REBIASED: u32 = 127 - 7;

/// Smallest number of E4M3 with a leading one, as bits of an F32.
const SMALLEST_NORMAL: u32 = (REBIASED + 1) << MANTISSA_BITS;

/// Tiles of a row: `ceil(width / 128)`; the last may be shorter.
pub const fn tiles(width: usize) -> usize {
    width.div_ceil(TILE)
}

vectorised! {
    /// Writes the codes and scales of `x`.
    ///
    /// - `x`: `[rows, width]`
    /// - `codes`: `[rows, width]`
    /// - `scales`: `[rows, tiles(width)]`
    ///
    /// # Panics
    ///
    /// If the lengths do not fit each other.
    pub fn encode<N: Number>(x: &[N], width: usize, codes: &mut [u8], scales: &mut [f32]) {
        encode_rows(x, width, codes, scales);
    }

    /// Writes `x[r, c] = value(codes[r, c]) * scales[r, c / 128]`, rounded once to the format of
    /// `x`; shapes are those of [`encode`].
    ///
    /// # Panics
    ///
    /// If the lengths do not fit each other.
    pub fn decode<N: Number>(codes: &[u8], scales: &[f32], width: usize, x: &mut [N]) {
        decode_rows(codes, scales, width, x);
    }
}

#[inline(always)]
fn encode_rows<N: Number>(x: &[N], width: usize, codes: &mut [u8], scales: &mut [f32]) {
    assert_fit(x.len(), width, codes.len(), scales.len());
    let row = width.max(1);
    let rows = x.chunks_exact(row).zip(codes.chunks_exact_mut(row));
    for ((x, codes), scales) in rows.zip(scales.chunks_exact_mut(tiles(row))) {
        let parts = x.chunks(TILE * TOGETHER).zip(codes.chunks_mut(TILE * TOGETHER));
        for ((x, codes), scales) in parts.zip(scales.chunks_mut(TOGETHER)) {
            encode_tiles(x, codes, scales);
        }
    }
}

#[inline(always)]
fn decode_rows<N: Number>(codes: &[u8], scales: &[f32], width: usize, x: &mut [N]) {
    assert_fit(x.len(), width, codes.len(), scales.len());
    let row = width.max(1);
    let rows = x.chunks_exact_mut(row).zip(codes.chunks_exact(row));
    for ((x, codes), scales) in rows.zip(scales.chunks_exact(tiles(row))) {
        for ((x, codes), scale) in x.chunks_mut(TILE).zip(codes.chunks(TILE)).zip(scales) {
            for (x, code) in x.iter_mut().zip(codes) {
                *x = N::nearest(value(*code) * scale);
            }
        }
    }
}

fn assert_fit(elements: usize, width: usize, codes: usize, scales: usize) {
    let rows = elements.checked_div(width).unwrap_or(0);
    assert_eq!(rows * width, elements, "elements of whole rows");
    assert_eq!(codes, elements, "codes");
    assert_eq!(scales, rows * tiles(width), "scales");
}

#[inline(always)]
fn encode_tiles<N: Number>(x: &[N], codes: &mut [u8], scales: &mut [f32]) {
    for (x, scale) in x.chunks(TILE).zip(scales.iter_mut()) {
        *scale = scale_of(x);
    }
    for ((x, codes), scale) in x.chunks(TILE).zip(codes.chunks_mut(TILE)).zip(scales) {
        encode_tile(x, *scale, codes);
    }
}

/// NaN if a NaN or an infinity is among the elements.
#[inline(always)]
fn scale_of<N: Number>(x: &[N]) -> f32 {
    // Magnitudes rise with their bits, and above all numbers are infinity and NaN.
    let largest = x.iter().fold(0, |most, x| u32::max(most, x.wide().to_bits() & !SIGN));
    let largest = f32::from_bits(largest);
    if largest.is_finite() { (largest / LARGEST).max(f32::MIN_POSITIVE) } else { f32::NAN }
}

#[inline(always)]
fn encode_tile<N: Number>(x: &[N], scale: f32, codes: &mut [u8]) {
    if scale.is_nan() {
        codes.fill(NAN);
        return;
    }
    for (code, x) in codes.iter_mut().zip(x) {
        *code = nearest(x.wide() / scale);
    }
}

/// The code of the nearest number, of two the even one, for at most 448 and an error of a division.
#[inline(always)]
fn nearest(x: f32) -> u8 {
    /// Makes the last byte of what is added below the distance of the exponents' origins, which
    /// saves its subtraction; even, so that ties stay even.
    const ORIGIN: u32 = ((REBIASED + 1 + DROPPED) << 3).wrapping_neg() & 0xFF;

    let bits = x.to_bits();
    // The last bit of a number so much larger is worth that of the code, so the sum is rounded
    // there. Below the smallest normal number the last bit keeps its worth.
    let power = (bits & EXPONENT).max(SMALLEST_NORMAL) + ((DROPPED << MANTISSA_BITS) | ORIGIN);
    let sum = f32::from_bits(bits & !SIGN) + f32::from_bits(power);
    // The last byte is that of the sum's mantissa, which has the leading one, plus eight times the
    // exponent; a carry of the mantissa goes to where it belongs.
    let code = sum.to_bits().wrapping_add(power >> DROPPED);
    (code | bits >> 24 & 0x80) as u8
}

/// The number that a code stands for; exact.
#[inline(always)]
fn value(code: u8) -> f32 {
    let bits = u32::from(code);
    let normal = f32::from_bits(((bits & 0x7F) << DROPPED) + (REBIASED << MANTISSA_BITS));
    // With exponent 0 there is no leading one, and the exponent counts as 1: twice the number less
    // the power of two. Not made from a subnormal F32, which some processors are slow with.
    let below = normal - f32::from_bits(SMALLEST_NORMAL);
    let magnitude = normal + if below < 0.0 { below } else { 0.0 };
    let signed = f32::from_bits(magnitude.to_bits() | (bits & 0x80) << 24);
    if code & NAN == NAN { f32::NAN } else { signed }
}

#[cfg(test)]
mod tests;
