//! The forward pass.

use super::{Heads, Inputs, Row, TILE, Turned, softmax};
use crate::{
    gemm::{Matrix, MatrixMut, Output, product},
    rope::Rotation,
};

/// Writes `y [t, h, value]`, the log-sum-exp `[t, h]` and the largest softmax input of each head.
///
/// `rotation` covers the `sequence` positions of one sequence; the tokens are whole sequences.
pub fn forward(
    heads: &Heads,
    rotation: &Rotation,
    sequence: usize,
    x: Inputs<'_>,
    y: &mut [f32],
    log_sums: &mut [f32],
    largest: &mut [f32],
) {
    largest.fill(f32::NEG_INFINITY);
    let mut turned = Turned::new(heads, sequence);
    let mut scores = vec![0.0; TILE.min(sequence) * sequence];
    let tokens = log_sums.len() / heads.heads;
    for start in (0..tokens).step_by(sequence) {
        turned.load_sequence(heads, rotation, x, start);
        for (head, largest) in largest.iter_mut().enumerate() {
            turned.load_head(heads, rotation, x, start, head);
            for first in (0..sequence).step_by(TILE) {
                let rows = TILE.min(sequence - first);
                let scores = &mut scores[..rows * (first + rows)];
                let tile = Tile { heads, start, head, first, rows };
                let stats = tile.attend(&turned, x.kv, scores, y);
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
    fn attend(
        &self,
        turned: &Turned,
        kv: &[f32],
        scores: &mut [f32],
        y: &mut [f32],
    ) -> [Row; TILE] {
        let &Tile { heads, start, head, first, rows } = self;
        let (key, value, keys) = (heads.key(), heads.value, first + rows);
        let q = Matrix::new(&turned.q[first * key..], rows, key);
        let k = Matrix::new(&turned.k, keys, key);
        let out = MatrixMut::new(scores, rows, keys);
        product(out, Output::Write, heads.scale, q, k.transposed());

        let mut stats = [Row::default(); TILE];
        softmax(scores, keys, first, 1, &mut stats);

        let from = start * heads.kv_width() + head * (heads.nope + value) + heads.nope;
        let v = Matrix::strided(&kv[from..], keys, value, heads.kv_width());
        let width = heads.heads * value;
        let to = (start + first) * width + head * value;
        let y = MatrixMut::strided(&mut y[to..], rows, value, width);
        product(y, Output::Write, 1.0, Matrix::new(scores, rows, keys), v);
        stats
    }
}
