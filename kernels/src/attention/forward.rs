//! The forward pass.

use super::{Heads, Inputs, Keys, Row, TILE, softmax};
use crate::{
    gemm::{Matrix, MatrixMut, Output, Packed, product},
    number::Number,
    rope::Rotation,
};

/// Writes `y [t, h, value]`, the log-sum-exp `[t, h]` and the largest softmax input of each head.
///
/// `rotation` covers the `sequence` positions of one sequence; the tokens are whole sequences.
pub fn forward<N: Number>(
    heads: &Heads,
    rotation: &Rotation,
    sequence: usize,
    x: Inputs<'_, N>,
    y: &mut [N],
    log_sums: &mut [f32],
    largest: &mut [f32],
) {
    largest.fill(f32::NEG_INFINITY);
    let mut keys = Keys::new(heads, sequence);
    let mut scores = vec![0.0; TILE.min(sequence) * sequence];
    let mut shares = vec![N::ZERO; scores.len()];
    let tokens = log_sums.len() / heads.heads;
    for start in (0..tokens).step_by(sequence) {
        keys.load_sequence(heads, rotation, x, start);
        for (head, largest) in largest.iter_mut().enumerate() {
            keys.load_head(heads, rotation, x, start, head);
            let (k, v) = (
                Packed::new(keys.k().transposed()),
                Packed::new(x.v(heads, sequence, start, head)),
            );
            for first in (0..sequence).step_by(TILE) {
                let rows = TILE.min(sequence - first);
                let tile = Tile { heads, start, head, first, rows };
                let held = rows * (first + rows);
                let (scores, shares) = (&mut scores[..held], &mut shares[..held]);
                let stats = tile.attend(&keys, &k, &v, scores, shares, y);
                for (row, stats) in stats[..rows].iter().enumerate() {
                    log_sums[(start + first + row) * heads.heads + head] = stats.log_sum;
                    *largest = largest.max(stats.largest);
                }
            }
        }
    }
}

/// Some query rows of one head of one sequence.
struct Tile<'a> {
    heads: &'a Heads,
    start: usize,
    head: usize,
    first: usize,
    rows: usize,
}

impl Tile<'_> {
    fn attend<N: Number>(
        &self,
        turned: &Keys<N>,
        k: &Packed,
        v: &Packed,
        scores: &mut [f32],
        shares: &mut [N],
        y: &mut [N],
    ) -> [Row; TILE] {
        let &Tile { heads, start, head, first, rows } = self;
        let (value, keys) = (heads.value, first + rows);
        let out = MatrixMut::new(scores, rows, keys);
        let q = turned.q().rows(first..first + rows);
        product(out, Output::Write, heads.scale, q, k.part(heads.key(), keys));

        let mut stats = [Row::default(); TILE];
        softmax(scores, keys, first, 1, &mut stats, shares);

        let width = heads.heads * value;
        let to = (start + first) * width + head * value;
        let y = N::matrix(&mut y[to..], rows, value, width);
        let shares = Matrix::of(N::values(shares), rows, keys, keys);
        product(y, Output::Write, 1.0, shares, v.part(keys, value));
        stats
    }
}
