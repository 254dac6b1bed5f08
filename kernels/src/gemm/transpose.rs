//! Matrices of four-byte numbers turned about their diagonal.

use bytemuck::Pod;

#[cfg(target_arch = "x86_64")]
use crate::vector::Width;

/// Writes `to[k * to_stride + i] = from[i * stride + k]` for `i < lines` and `k < depth`.
///
/// A number of the source may be a pair of smaller ones, so its stride is counted in `S`.
///
/// # Panics
///
/// If a slice is too short.
pub(super) fn turn<S: Pod>(
    from: &[S],
    stride: usize,
    lines: usize,
    depth: usize,
    to: &mut [u32],
    to_stride: usize,
) {
    let each = size_of::<u32>() / size_of::<S>();
    if lines == 0 || depth == 0 {
        return;
    }
    assert!(each * size_of::<S>() == size_of::<u32>() && lines <= to_stride);
    assert!((lines - 1) * stride + depth * each <= from.len());
    assert!((depth - 1) * to_stride + lines <= to.len());
    let (source, target) = (from.as_ptr(), to.as_mut_ptr());
    let (wide_lines, wide_depth) = wide_part(lines, depth);
    #[cfg(target_arch = "x86_64")]
    for i in (0..wide_lines).step_by(WIDE) {
        for k in (0..wide_depth).step_by(WIDE) {
            // SAFETY: `wide_part` has asked the processor; lines i..i+16 at depths k..k+16 lie
            // within both, as asserted above.
            unsafe {
                let from = source.add(i * stride + k * each);
                let to = target.add(k * to_stride + i);
                wide_square(from.cast(), stride * size_of::<S>(), to, to_stride);
            }
        }
    }
    let (whole_lines, whole_depth) = (lines / 4 * 4, depth / 4 * 4);
    for i in (0..whole_lines).step_by(4) {
        for k in (if i < wide_lines { wide_depth } else { 0 }..whole_depth).step_by(4) {
            // SAFETY: lines i..i+4 at depths k..k+4 lie within both, as asserted above.
            unsafe {
                let from = source.add(i * stride + k * each);
                let to = target.add(k * to_stride + i);
                square(from.cast(), stride * size_of::<S>(), to, to_stride);
            }
        }
    }
    let one = |i: usize, k: usize| {
        // SAFETY: line i at depth k lies within both, as asserted above; it may be unaligned.
        unsafe {
            let number = source.add(i * stride + k * each).cast::<u32>().read_unaligned();
            target.add(k * to_stride + i).write(number);
        }
    };
    for i in 0..lines {
        let done = if i < whole_lines { whole_depth } else { 0 };
        (done..depth).for_each(|k| one(i, k));
    }
}

/// A side of the squares that the widest vectors turn.
const WIDE: usize = 16;

/// Lines and depths that are turned in squares of 16: whole ones, where there are such vectors.
fn wide_part(lines: usize, depth: usize) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if Width::widest() == Width::Avx512 {
        return (lines / WIDE * WIDE, depth / WIDE * WIDE);
    }
    let _ = (lines, depth);
    (0, 0)
}

/// Turns sixteen by sixteen numbers; the stride of the source is in bytes.
///
/// Lines of a weight lie far apart, further than the processor looks ahead by itself, so what comes
/// next of each is asked for.
///
/// # Safety
///
/// The processor has AVX-512; sixteen rows of 64 bytes must be readable and writable at the given
/// strides.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn wide_square(from: *const u8, stride: usize, to: *mut u32, to_stride: usize) {
    use std::arch::x86_64::*;
    /// Bytes ahead.
    const AHEAD: usize = 256;
    // SAFETY: the caller vouches for what is read; asking for what lies beyond does nothing.
    let row = |i: usize| unsafe {
        let from = from.add(i * stride);
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
        _mm512_loadu_ps(from.cast())
    };
    let rows: [__m512; 16] = std::array::from_fn(row);
    // Pairs of rows, then fours: in each quarter of `fours[4 i + j]` stands a column of four rows.
    let pairs: [__m512; 16] = std::array::from_fn(|i| {
        let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
        if i % 2 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) }
    });
    let fours: [__m512; 16] = std::array::from_fn(|i| {
        let first = i / 4 * 4 + i % 4 / 2;
        let (a, b) = (_mm512_castps_pd(pairs[first]), _mm512_castps_pd(pairs[first + 2]));
        let four = if i % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) };
        _mm512_castpd_ps(four)
    });
    for j in 0..4 {
        let [a, b, c, d] = std::array::from_fn(|i| fours[4 * i + j]);
        let even = |a, b| _mm512_shuffle_f32x4::<0x88>(a, b);
        let odd = |a, b| _mm512_shuffle_f32x4::<0xdd>(a, b);
        let (even_ab, even_cd) = (even(a, b), even(c, d));
        let (odd_ab, odd_cd) = (odd(a, b), odd(c, d));
        let columns = [
            even(even_ab, even_cd),
            even(odd_ab, odd_cd),
            odd(even_ab, even_cd),
            odd(odd_ab, odd_cd),
        ];
        for (quarter, column) in columns.into_iter().enumerate() {
            // SAFETY: the caller vouches for what is written.
            unsafe { _mm512_storeu_ps(to.add((4 * quarter + j) * to_stride).cast(), column) };
        }
    }
}

/// Turns four by four numbers; the stride of the source is in bytes.
///
/// # Safety
///
/// Four rows of 16 bytes must be readable and writable at the given strides.
#[inline(always)]
unsafe fn square(from: *const u8, stride: usize, to: *mut u32, to_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        // SAFETY: the caller vouches for the memory; the instructions belong to every x86-64.
        unsafe {
            let row = |i: usize| _mm_loadu_ps(from.add(i * stride).cast());
            let (mut a, mut b, mut c, mut d) = (row(0), row(1), row(2), row(3));
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            for (k, x) in [a, b, c, d].into_iter().enumerate() {
                _mm_storeu_ps(to.add(k * to_stride).cast(), x);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..4 {
        for k in 0..4 {
            // SAFETY: the caller vouches for the memory.
            unsafe {
                let number = from.add(i * stride + 4 * k).cast::<u32>().read_unaligned();
                to.add(k * to_stride + i).write(number);
            }
        }
    }
}

/// The transpose of a `[rows, cols]` matrix.
///
/// # Panics
///
/// If there are not so many values.
pub(crate) fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    /// A side of the squares that stay in the cache.
    const SIDE: usize = 32;
    assert_eq!(values.len(), rows * cols, "values of a [{rows}, {cols}]");
    let mut out = vec![0.0_f32; values.len()];
    let to: &mut [u32] = bytemuck::cast_slice_mut(&mut out);
    for top in (0..rows).step_by(SIDE) {
        for left in (0..cols).step_by(SIDE) {
            let (height, width) = (SIDE.min(rows - top), SIDE.min(cols - left));
            let from = &values[top * cols + left..];
            turn(from, cols, height, width, &mut to[left * rows + top..], rows);
        }
    }
    out
}

/// Copies what stands below the diagonal of a square matrix above it.
pub(super) fn mirror<T: Pod>(c: &mut [T], n: usize) {
    /// A side of the squares that are turned at a time.
    const SIDE: usize = 8;
    assert_eq!(c.len(), n * n, "values of a square of side {n}");
    for top in (0..n).step_by(SIDE) {
        let height = SIDE.min(n - top);
        for left in (0..top).step_by(SIDE) {
            let square: [[T; SIDE]; SIDE] = std::array::from_fn(|row| {
                let from = (top + row.min(height - 1)) * n + left;
                *c[from..].first_chunk().expect("left of the diagonal are whole squares")
            });
            let square = turned(square);
            for (row, from) in square.iter().enumerate() {
                c[(left + row) * n + top..][..height].copy_from_slice(&from[..height]);
            }
        }
        for row in top..top + height {
            for col in top..row {
                c[col * n + row] = c[row * n + col];
            }
        }
    }
}

/// A square turned about its diagonal.
#[inline(always)]
fn turned<T: Pod>(rows: [[T; 8]; 8]) -> [[T; 8]; 8] {
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == 2 {
        let rows: [[u16; 8]; 8] = bytemuck::cast(rows);
        return bytemuck::cast(turned_pairs(rows));
    }
    std::array::from_fn(|col| std::array::from_fn(|row| rows[row][col]))
}

/// As [`turned`]: three times, the first half of all numbers is interleaved with the second, which
/// turns the bits of every place by one.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turned_pairs(rows: [[u16; 8]; 8]) -> [[u16; 8]; 8] {
    use std::arch::x86_64::{_mm_unpackhi_epi16 as high, _mm_unpacklo_epi16 as low};
    let mut rows: [std::arch::x86_64::__m128i; 8] = bytemuck::cast(rows);
    for _ in 0..3 {
        let [a, b, c, d, e, f, g, h] = rows;
        // SAFETY: the instructions belong to every x86-64.
        rows = unsafe {
            [
                low(a, e),
                high(a, e),
                low(b, f),
                high(b, f),
                low(c, g),
                high(c, g),
                low(d, h),
                high(d, h),
            ]
        };
    }
    bytemuck::cast(rows)
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lands_in_its_place_whatever_the_extents() {
        for (lines, depth) in [(1, 1), (4, 4), (32, 20), (35, 50), (5, 9), (31, 3), (0, 4), (4, 0)]
        {
            let stride = depth + 3;
            let from: Vec<u32> = (0..(lines * stride + 8) as u32).collect();
            let mut to = vec![u32::MAX; depth * 36];
            turn(&from, stride, lines, depth, &mut to, 36);
            for (at, &number) in to.iter().enumerate() {
                let (k, i) = (at / 36, at % 36);
                let truth = if i < lines { (i * stride + k) as u32 } else { u32::MAX };
                assert_eq!(number, truth, "{lines} {depth}: {i} {k}");
            }
        }
    }

    #[test]
    fn pairs_of_smaller_numbers_may_begin_anywhere() {
        let from: Vec<u16> = (0..100).collect();
        let mut to = vec![0; 4 * 5];
        turn(&from[1..], 13, 5, 4, &mut to, 5);
        let pair = |i: u32, k: u32| (1 + 13 * i + 2 * k) | ((2 + 13 * i + 2 * k) << 16);
        for (at, number) in to.iter().enumerate() {
            assert_eq!(*number, pair(at as u32 % 5, at as u32 / 5));
        }
    }

    #[test]
    fn a_mirrored_matrix_is_symmetric() {
        fn check<T: Pod + PartialEq + std::fmt::Debug>(n: usize, number: fn(usize) -> T) {
            let mut c: Vec<T> = (0..n * n).map(number).collect();
            mirror(&mut c, n);
            for (row, col) in (0..n * n).map(|at| (at / n, at % n)) {
                assert_eq!(c[row * n + col], number(row.max(col) * n + row.min(col)), "{n}");
            }
        }
        for n in [1, 7, 8, 16, 37, 64] {
            check(n, |at| at as f32);
            check(n, |at| at as u16);
        }
    }

    #[test]
    fn a_transpose_has_rows_for_columns() {
        for (rows, cols) in [(1, 1), (3, 50), (64, 33), (0, 4)] {
            let values: Vec<f32> = (0..rows * cols).map(|at| at as f32).collect();
            let turned = transposed(&values, rows, cols);
            for (row, col) in (0..rows * cols).map(|at| (at / cols, at % cols)) {
                assert_eq!(turned[col * rows + row], values[row * cols + col]);
            }
        }
    }
}
