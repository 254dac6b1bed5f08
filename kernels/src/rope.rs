//! Rotary positions: neighbouring columns `(2i, 2i+1)` turned by `position * frequency[i]`.
//!
//! Su et al., arXiv:2104.09864, section 3.2.2, with interleaved pairs as in the released weights.

use crate::number::Number;

/// Cosines and sines of a range of positions.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Cosine and sine of each pair, positions slowest.
    turns: Vec<(f32, f32)>,
    pairs: usize,
}

impl Rotation {
    /// Angles of positions `first..first + positions`, computed in f64.
    ///
    /// `frequencies` are radians per position, one per pair; `magnitude` scales the result.
    pub fn new(frequencies: &[f64], magnitude: f64, first: usize, positions: usize) -> Self {
        let turn = |position: usize, frequency: f64| {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            ((cos * magnitude) as f32, (sin * magnitude) as f32)
        };
        let turns = (first..first + positions)
            .flat_map(|position| frequencies.iter().map(move |&f| turn(position, f)))
            .collect();
        Rotation { turns, pairs: frequencies.len() }
    }

    /// Positions for which there are angles.
    pub fn positions(&self) -> usize {
        self.turns.len() / self.pairs.max(1)
    }

    /// Cosine and sine of each pair, one after the other: `[positions, pairs, 2]`, for devices.
    pub fn turns(&self) -> Vec<f32> {
        self.turns.iter().flat_map(|&(cos, sin)| [cos, sin]).collect()
    }

    fn of(&self, index: usize) -> &[(f32, f32)] {
        &self.turns[index * self.pairs..][..self.pairs]
    }

    /// Turns the pairs of `x` as the `index`-th position asks.
    pub fn turn<N: Number>(&self, index: usize, x: &mut [N]) {
        for (x, &(cos, sin)) in x.chunks_exact_mut(2).zip(self.of(index)) {
            let (a, b) = (x[0].wide(), x[1].wide());
            (x[0], x[1]) = (N::nearest(a * cos - b * sin), N::nearest(a * sin + b * cos));
        }
    }

    /// The transpose of [`turn`](Self::turn), which takes gradients back.
    pub fn turn_back(&self, index: usize, x: &mut [f32]) {
        for (x, &(cos, sin)) in x.chunks_exact_mut(2).zip(self.of(index)) {
            (x[0], x[1]) = (x[0] * cos + x[1] * sin, x[1] * cos - x[0] * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_depend_on_the_distance_only() {
        let rotation = Rotation::new(&[0.7, 0.01], 1.0, 0, 20);
        let product = |i: usize, j: usize| {
            let (mut q, mut k) = ([0.3, -1.2, 0.8, 0.5], [1.1, 0.4, -0.6, 0.9]);
            rotation.turn(i, &mut q);
            rotation.turn(j, &mut k);
            q.iter().zip(&k).map(|(q, k)| q * k).sum::<f32>()
        };
        assert!((product(3, 1) - product(17, 15)).abs() < 1e-5);
        assert!((product(3, 1) - product(3, 2)).abs() > 1e-2);
    }

    #[test]
    fn turning_back_undoes_a_turn_and_a_later_start_is_a_later_position() {
        let whole = Rotation::new(&[0.7, 0.01], 1.0, 0, 8);
        let late = Rotation::new(&[0.7, 0.01], 1.0, 5, 3);
        let mut x = [0.3, -1.2, 0.8, 0.5];
        whole.turn(6, &mut x);
        late.turn_back(1, &mut x);
        let error = x.iter().zip([0.3, -1.2, 0.8, 0.5]).map(|(a, b)| (a - b).abs());
        assert!(error.fold(0.0, f32::max) < 1e-6);
    }
}
