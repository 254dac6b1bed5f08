//! The gradient: every tile of probabilities is recomputed from its log-sum-exp.
//!
//! ```text
//! p = exp(scale q k^T - log_sum)      dp = dy v^T
//! ds = p (dp - sum_u p dp)            dv += p^T dy
//! dq = scale ds k                     dk += scale ds^T q
//! ```

use super::{Heads, Inputs, TILE, Turned};
use crate::{
    exp::exp,
    gemm::{Matrix, MatrixMut, Output, product},
    reduce::{add, sum_of},
    rope::Rotation,
    vector::vectorised,
};

/// Gradients of the three inputs, in their layouts; all zero at first.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// `[t, h, nope+rope]`.
    pub q: &'a mut [f32],
    /// `[t, h, nope+value]`.
    pub kv: &'a mut [f32],
    /// `[t, rope]`.
    pub k_rope: &'a mut [f32],
}

/// Adds the gradients of the inputs to `dx`, given those of `y` and the saved log-sum-exps.
pub fn backward(
    heads: &Heads,
    rotation: &Rotation,
    sequence: usize,
    x: Inputs<'_>,
    log_sums: &[f32],
    dy: &[f32],
    mut dx: Gradients<'_>,
) {
    let mut turned = Turned::new(heads, sequence);
    let mut dk = vec![0.0; sequence * heads.key()];
    let mut scores = vec![0.0; TILE.min(sequence) * sequence];
    let mut dscores = scores.clone();
    let tokens = log_sums.len() / heads.heads;
    for start in (0..tokens).step_by(sequence) {
        turned.load_sequence(heads, rotation, x, start);
        for head in 0..heads.heads {
            turned.load_head(heads, rotation, x, start, head);
            dk.fill(0.0);
            for first in (0..sequence).step_by(TILE) {
                let rows = TILE.min(sequence - first);
                let tile = Tile { heads, start, head, first, rows };
                let scores = &mut scores[..rows * (first + rows)];
                let dscores = &mut dscores[..rows * (first + rows)];
                tile.probabilities(&turned, log_sums, scores);
                tile.through_values(x.kv, scores, dy, dscores, dx.kv);
                tile.through_scores(&turned, dscores, dx.q, &mut dk);
            }
            put_back(heads, rotation, start, head, &dk, &mut dx);
        }
        turn_keys_back(heads, rotation, start, sequence, dx.k_rope);
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
    fn keys(&self) -> usize {
        self.first + self.rows
    }

    fn probabilities(&self, turned: &Turned, log_sums: &[f32], scores: &mut [f32]) {
        let (key, keys) = (self.heads.key(), self.keys());
        let q = Matrix::new(&turned.q[self.first * key..], self.rows, key);
        let k = Matrix::new(&turned.k, keys, key).transposed();
        let out = MatrixMut::new(scores, self.rows, keys);
        product(out, Output::Write, self.heads.scale, q, k);
        let from = (self.start + self.first) * self.heads.heads + self.head;
        let log_sums = log_sums[from..].iter().step_by(self.heads.heads);
        for (row, (scores, log_sum)) in scores.chunks_exact_mut(keys).zip(log_sums).enumerate() {
            exponentials(scores, self.first + row + 1, *log_sum);
        }
    }

    /// Makes `ds` from `p` and `dy`, and adds to `dv`.
    fn through_values(
        &self,
        kv: &[f32],
        scores: &[f32],
        dy: &[f32],
        dscores: &mut [f32],
        dkv: &mut [f32],
    ) {
        let Heads { heads, nope, value, .. } = *self.heads;
        let (rows, keys, width) = (self.rows, self.keys(), self.heads.kv_width());
        let from = self.start * width + self.head * (nope + value) + nope;
        let v = Matrix::strided(&kv[from..], keys, value, width);
        let at = (self.start + self.first) * heads * value + self.head * value;
        let dy = Matrix::strided(&dy[at..], rows, value, heads * value);
        let p = Matrix::new(scores, rows, keys);
        let dv = MatrixMut::strided(&mut dkv[from..], keys, value, width);
        product(dv, Output::Add, 1.0, p.transposed(), dy);
        product(MatrixMut::new(dscores, rows, keys), Output::Write, 1.0, dy, v.transposed());
        through_softmax(scores, dscores, keys, self.first);
    }

    /// Writes `dq`, still turned, and adds to `dk`.
    fn through_scores(&self, turned: &Turned, dscores: &[f32], dq: &mut [f32], dk: &mut [f32]) {
        let (key, rows, keys, heads) = (self.heads.key(), self.rows, self.keys(), self.heads.heads);
        let ds = Matrix::new(dscores, rows, keys);
        let at = ((self.start + self.first) * heads + self.head) * key;
        let dq = MatrixMut::strided(&mut dq[at..], rows, key, heads * key);
        product(dq, Output::Write, self.heads.scale, ds, Matrix::new(&turned.k, keys, key));
        let q = Matrix::new(&turned.q[self.first * key..], rows, key);
        let dk = MatrixMut::new(dk, keys, key);
        product(dk, Output::Add, self.heads.scale, ds.transposed(), q);
    }
}

vectorised! {
    /// `p = exp(score - log_sum)` for the seen keys, zero for the others.
    fn exponentials(scores: &mut [f32], seen: usize, log_sum: f32) {
        let (seen, masked) = scores.split_at_mut(seen);
        seen.iter_mut().for_each(|x| *x = exp(*x - log_sum));
        masked.fill(0.0);
    }

    /// Makes `ds = p (dp - sum p dp)` from `dp`, in place.
    fn through_softmax(p: &[f32], ds: &mut [f32], keys: usize, first: usize) {
        for (row, (p, ds)) in p.chunks_exact(keys).zip(ds.chunks_exact_mut(keys)).enumerate() {
            let (ds, masked) = ds.split_at_mut(first + row + 1);
            let p = &p[..ds.len()];
            let along = sum_of(p, ds, |p, dp| p * dp);
            ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - along));
            masked.fill(0.0);
        }
    }
}

/// Turns a head's `dq` back and hands its `dk` to `dkv` and to the shared `dk_rope`.
fn put_back(
    heads: &Heads,
    rotation: &Rotation,
    start: usize,
    head: usize,
    dk: &[f32],
    dx: &mut Gradients<'_>,
) {
    let (nope, rope, key) = (heads.nope, heads.rope, heads.key());
    for (position, dk) in dk.chunks_exact(key).enumerate() {
        let token = start + position;
        let q = (token * heads.heads + head) * key + nope;
        rotation.turn_back(position, &mut dx.q[q..][..rope]);
        let kv = token * heads.kv_width() + head * (nope + heads.value);
        dx.kv[kv..][..nope].copy_from_slice(&dk[..nope]);
        add(&mut dx.k_rope[token * rope..][..rope], &dk[nope..]);
    }
}

fn turn_keys_back(
    heads: &Heads,
    rotation: &Rotation,
    start: usize,
    sequence: usize,
    dk_rope: &mut [f32],
) {
    for position in 0..sequence {
        let at = (start + position) * heads.rope;
        rotation.turn_back(position, &mut dk_rope[at..][..heads.rope]);
    }
}
