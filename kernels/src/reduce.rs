//! Sums, maxima and scaling; sums go in one fixed order, sixteen partial ones that a fixed tree
//! joins.

use crate::{number::Number, vector::vectorised};

/// Partial results held side by side: one AVX-512 register.
pub(crate) const LANES: usize = 16;

/// Elements that [`sums`] works on at a time.
const BLOCK: usize = 256;

#[inline(always)]
fn join(mut lanes: [f32; LANES], with: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = with(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum_i term(a[i], b[i])`, for use inside of loops that are already compiled wide.
#[inline(always)]
pub(crate) fn sum_of<A: Number, B: Number>(
    a: &[A],
    b: &[B],
    term: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += term(a[i].wide(), b[i].wide());
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += term(a.wide(), b.wide());
    }
    join(lanes, |a, b| a + b)
}

/// `sum_i a[i] * b[i]` with fused steps, for use inside of loops that are already compiled wide.
#[inline(always)]
pub(crate) fn fused_dot(a: &[f32], b: &[f32]) -> f32 {
    join(partial(a, b), |a, b| a + b)
}

/// The partial sums, one in each lane.
#[inline(always)]
fn partial(a: &[f32], b: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        lanes = std::array::from_fn(|i| a[i].mul_add(b[i], lanes[i]));
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = a.mul_add(*b, *lane);
    }
    lanes
}

/// `sum_i a[i] * rows[row][i]` of sixteen rows, each with the bits of [`fused_dot`], for use inside
/// of loops that are already compiled wide: the partial sums of all rows are joined together.
#[inline(always)]
pub(crate) fn dots(a: &[f32], rows: &[f32]) -> [f32; LANES] {
    let mut lanes = [[0.0; LANES]; LANES];
    for (lanes, row) in lanes.iter_mut().zip(rows.chunks_exact(a.len())) {
        *lanes = partial(a, row);
    }
    for i in 0..8 {
        lanes[i] = fold::<8>(&lanes[2 * i], &lanes[2 * i + 1]);
    }
    for i in 0..4 {
        lanes[i] = fold::<4>(&lanes[2 * i], &lanes[2 * i + 1]);
    }
    for i in 0..2 {
        lanes[i] = fold::<2>(&lanes[2 * i], &lanes[2 * i + 1]);
    }
    fold::<1>(&lanes[0], &lanes[1])
}

/// Joins neighbouring runs of `HALF` lanes, first those of `x`, then those of `y`.
#[inline(always)]
fn fold<const HALF: usize>(x: &[f32; LANES], y: &[f32; LANES]) -> [f32; LANES] {
    let mut joined = [0.0; LANES];
    for (i, joined) in joined.iter_mut().enumerate() {
        let at = i / HALF * 2 * HALF + i % HALF;
        let from = if at < LANES { x } else { y };
        *joined = from[at % LANES] + from[at % LANES + HALF];
    }
    joined
}

/// The largest element, for use inside of loops that are already compiled wide.
#[inline(always)]
pub(crate) fn max_of(a: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(chunk[i], lanes[i]);
        }
    }
    for (lane, &a) in lanes.iter_mut().zip(rest) {
        *lane = larger(a, *lane);
    }
    join(lanes, larger)
}

/// Place of the largest number in the total order of floats, the first one of equal ones.
///
/// # Panics
///
/// If there is none.
pub fn first_largest(a: &[f32]) -> usize {
    let most = largest_key(a);
    let place = a.iter().position(|x| key(*x) == most);
    place.expect("the largest of some numbers is one of them")
}

/// The total order of floats as one of whole numbers.
#[inline(always)]
fn key(x: f32) -> i32 {
    let bits = x.to_bits().cast_signed();
    bits ^ (((bits >> 31).cast_unsigned() >> 1).cast_signed())
}

vectorised! {
    fn largest_key(a: &[f32]) -> i32 {
        let mut lanes = [i32::MIN; LANES];
        let chunks = a.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            lanes = std::array::from_fn(|i| lanes[i].max(key(chunk[i])));
        }
        rest.iter().map(|x| key(*x)).chain(lanes).fold(i32::MIN, i32::max)
    }

    /// `sum_i a[i] * b[i]`.
    pub fn dot<N: Number>(a: &[N], b: &[N]) -> f32 {
        sum_of(a, b, |a, b| a * b)
    }
}

/// `sum_i a[i]^2` in f64, for norms of whole gradients.
pub fn sum_of_squares(a: &[f32]) -> f64 {
    a.chunks(4096).map(|part| f64::from(dot(part, part))).sum()
}

vectorised! {
    /// `y[i] += x[i]`.
    pub fn add(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    }

    /// `y[i] = (a[i] + b[i]) + c[i] + ..` in the order of `all`, rounded once.
    pub fn sums<N: Number>(all: &[&[N]], y: &mut [N]) {
        for (block, y) in y.chunks_mut(BLOCK).enumerate() {
            let mut sum = [0.0; BLOCK];
            for (which, x) in all.iter().enumerate() {
                let x = &x[block * BLOCK..][..y.len()];
                if which == 0 {
                    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum = x.wide());
                } else {
                    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x.wide());
                }
            }
            y.iter_mut().zip(&sum).for_each(|(y, sum)| *y = N::nearest(*sum));
        }
    }

    /// `a[i] + b[i]`, each sum rounded to its format.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn sum<N: Number>(a: &[N], b: &[N]) -> Vec<N> {
        assert_eq!(a.len(), b.len(), "one number for each");
        let mut y = Vec::with_capacity(a.len());
        for ((y, a), b) in y.spare_capacity_mut()[..a.len()].iter_mut().zip(a).zip(b) {
            y.write(N::nearest(a.wide() + b.wide()));
        }
        // SAFETY: all three are as long, so each element was written.
        unsafe { y.set_len(a.len()) };
        y
    }

    /// `y[i] += a * x[i]`.
    pub fn add_scaled<N: Number>(y: &mut [f32], a: f32, x: &[N]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x.wide());
    }

    /// `y[i] = a * x[i]`, rounded to the format of `y`.
    pub fn scaled<A: Number, B: Number>(x: &[A], a: f32, y: &mut [B]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = B::nearest(a * x.wide()));
    }

    /// `y[i] = a * y[i] + b * x[i]`.
    pub fn scale_and_add<N: Number>(y: &mut [f32], a: f32, b: f32, x: &[N]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = a * *y + b * x.wide());
    }

    /// Momentum `m[i] = a * m[i] + g[i]`, and how far it looks ahead: `g[i] + a * m[i]`.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn look_ahead(m: &mut [f32], a: f32, g: &[f32]) -> Vec<f32> {
        assert_eq!(m.len(), g.len(), "a gradient for each momentum");
        let mut ahead = Vec::with_capacity(g.len());
        for ((ahead, m), g) in ahead.spare_capacity_mut()[..g.len()].iter_mut().zip(m).zip(g) {
            *m = a * *m + g;
            ahead.write(g + a * *m);
        }
        // SAFETY: all three are as long, so each element was written.
        unsafe { ahead.set_len(g.len()) };
        ahead
    }

    /// `y[i] *= a`.
    pub fn scale(y: &mut [f32], a: f32) {
        y.iter_mut().for_each(|y| *y *= a);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_dots_at_once_have_the_bits_of_each() {
        for width in [1, 15, 16, 47, 80] {
            let values: Vec<f32> =
                (0..17 * width as u64).map(|i| crate::random::normal(3, i)).collect();
            let (a, rows) = values.split_at(width);
            for (together, row) in dots(a, rows).iter().zip(rows.chunks(width)) {
                assert_eq!(together.to_bits(), fused_dot(a, row).to_bits());
            }
        }
    }

    #[test]
    fn every_element_counts_once_whatever_the_length() {
        for n in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum_of(&a, &a, |a, _| a), (n * (n + 1) / 2) as f32);
            assert_eq!(max_of(&a), if n == 0 { f32::NEG_INFINITY } else { n as f32 });
            assert_eq!(sum_of_squares(&a), (n * (n + 1) * (2 * n + 1) / 6) as f64);
        }
    }

    #[test]
    fn several_are_added_in_order_and_rounded_once() {
        let a: Vec<f32> = (0..300).map(|i| i as f32 / 3.0).collect();
        let (b, c) = (vec![1e-3; 300], vec![-0.5; 300]);
        let mut y = vec![9.0; 300];
        sums(&[&a, &b, &c], &mut y);
        assert!(y.iter().zip(&a).all(|(y, a)| *y == (a + 1e-3) + -0.5));
        let narrow = [half::bf16::from_f32(1.0), half::bf16::from_f32(1.0 / 256.0)];
        let mut y = [half::bf16::ZERO];
        sums(&[&narrow[..1], &narrow[1..], &narrow[1..]], &mut y);
        assert_eq!(y[0].to_f32(), 1.0 + 1.0 / 128.0, "one rounding at the end");
    }

    #[test]
    fn the_first_of_the_largest_is_found() {
        let mut a = vec![-3.0; 40];
        (a[5], a[21], a[38]) = (f32::NEG_INFINITY, 2.0, 2.0);
        assert_eq!(first_largest(&a), 21);
        a[39] = f32::INFINITY;
        assert_eq!(first_largest(&a), 39);
        assert_eq!(first_largest(&[-1.0, -2.0]), 0);
        assert_eq!(first_largest(&[-0.0, 0.0]), 1);
    }

    #[test]
    fn a_sum_of_two_is_rounded() {
        let narrow = |x: f32| half::bf16::from_f32(x);
        let (a, b) = (vec![narrow(256.0); 37], vec![narrow(1.0); 37]);
        assert_eq!(sum(&a, &b), vec![narrow(256.0); 37]);
        assert_eq!(sum(&[1.0, 2.0], &[0.5, -2.0]), [1.5, 0.0]);
    }

    #[test]
    fn sums_grow_in_place() {
        let mut y = vec![1.0, 2.0];
        add(&mut y, &[1.0, 1.0]);
        add_scaled(&mut y, 0.5, &[2.0, 4.0]);
        scale(&mut y, 2.0);
        assert_eq!(y, [6.0, 10.0]);
        scale_and_add(&mut y, 0.5, -1.0, &[1.0, 2.0]);
        assert_eq!(y, [2.0, 3.0]);
        assert_eq!(look_ahead(&mut y, 0.5, &[1.0, 0.5]), [2.0, 1.5]);
        assert_eq!(y, [2.0, 2.0]);
    }
}
