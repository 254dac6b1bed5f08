//! The gradient: every tile of probabilities is recomputed from its log-sum-exp.
//!
//! ```text
//! p = exp(scale q k^T - log_sum)      dp = dy v^T
//! ds = p (dp - sum_u p dp)            dv = sum over tiles of p^T dy
//! dq = scale ds k                     dk = scale sum over tiles of ds^T q
//! ```

use super::{Heads, Inputs, Keys, TILE};
use crate::{
    exp::exp,
    gemm::{Matrix, MatrixMut, Output, Packed, product},
    number::Number,
    reduce::{add, scaled, sum_of},
    rope::Rotation,
    vector::vectorised,
};

/// Gradients of the three inputs, in their layouts; written, not added to.
#[derive(Debug)]
pub struct Gradients<'a, N> {
    /// `[t, h, nope+rope]`.
    pub q: &'a mut [N],
    /// `[t, h, nope+value]`.
    pub kv: &'a mut [N],
    /// `[t, rope]`.
    pub k_rope: &'a mut [N],
}

/// Sums of one head of one sequence, in f32 until all tiles are through.
struct Sums {
    /// Still turned: `[s, nope+rope]`.
    dq: Vec<f32>,
    /// Still turned: `[s, nope+rope]`.
    dk: Vec<f32>,
    /// `[s, value]`.
    dv: Vec<f32>,
    /// Of all heads so far, still turned: `[s, rope]`.
    dk_rope: Vec<f32>,
}

/// Scores of one tile and their gradients, in f32 and, the one or the other, as a factor of
/// products.
struct Scores<N> {
    p: Vec<f32>,
    dp: Vec<f32>,
    factor: Vec<N>,
}

/// What the products of a head share: the packed forms of its keys and values.
struct Factors {
    k: Packed,
    k_turned: Packed,
    v_turned: Packed,
}

/// Writes the gradients of the inputs, given those of `y` and the saved log-sum-exps.
pub fn backward<N: Number>(
    heads: &Heads,
    rotation: &Rotation,
    sequence: usize,
    x: Inputs<'_, N>,
    log_sums: &[f32],
    dy: &[N],
    mut dx: Gradients<'_, N>,
) {
    let mut keys = Keys::new(heads, sequence);
    let wide = |width: usize| vec![0.0; sequence * width];
    let (key, value, rope) = (heads.key(), heads.value, heads.rope);
    let mut sums = Sums { dq: wide(key), dk: wide(key), dv: wide(value), dk_rope: wide(rope) };
    let p = wide(TILE.min(sequence));
    let mut scores = Scores { dp: p.clone(), factor: vec![N::ZERO; p.len()], p };
    let tokens = log_sums.len() / heads.heads;
    for start in (0..tokens).step_by(sequence) {
        keys.load_sequence(heads, rotation, x, start);
        sums.dk_rope.fill(0.0);
        for head in 0..heads.heads {
            keys.load_head(heads, rotation, x, start, head);
            let k = keys.k();
            let v = x.v(heads, sequence, start, head);
            let k_turned = Packed::new(k.transposed());
            let v_turned = Packed::new(v.transposed());
            let factors = Factors { k: Packed::new(k), k_turned, v_turned };
            sums.dk.fill(0.0);
            sums.dv.fill(0.0);
            for first in (0..sequence).step_by(TILE) {
                let rows = TILE.min(sequence - first);
                let tile = Tile { heads, start, head, first, rows };
                tile.probabilities(&keys, &factors, log_sums, &mut scores);
                tile.through_values(&factors, dy, &mut scores, &mut sums);
                tile.through_scores(&keys, &factors, &scores, &mut sums);
            }
            put_back(heads, rotation, start, head, &mut sums, &mut dx);
        }
        let to = &mut dx.k_rope[start * rope..][..sequence * rope];
        let rows = sums.dk_rope.chunks_exact_mut(rope.max(1));
        rows.enumerate().for_each(|(position, row)| rotation.turn_back(position, row));
        scaled(&sums.dk_rope, 1.0, to);
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

    /// Scores in the tile.
    fn held(&self) -> usize {
        self.rows * self.keys()
    }

    /// Writes `p`, also as a factor.
    fn probabilities<N: Number>(
        &self,
        keys: &Keys<N>,
        factors: &Factors,
        log_sums: &[f32],
        scores: &mut Scores<N>,
    ) {
        let (count, p) = (self.keys(), &mut scores.p[..self.held()]);
        let q = keys.q().rows(self.first..count);
        let out = MatrixMut::new(p, self.rows, count);
        let k = factors.k_turned.part(self.heads.key(), count);
        product(out, Output::Write, self.heads.scale, q, k);
        let from = (self.start + self.first) * self.heads.heads + self.head;
        let log_sums = log_sums[from..].iter().step_by(self.heads.heads);
        let rows = p.chunks_exact_mut(count).zip(scores.factor.chunks_exact_mut(count));
        for (row, ((p, factor), log_sum)) in rows.zip(log_sums).enumerate() {
            exponentials(p, factor, self.first + row + 1, *log_sum);
        }
    }

    /// Makes `ds` from `p` and `dy`, and adds to `dv`.
    fn through_values<N: Number>(
        &self,
        factors: &Factors,
        dy: &[N],
        scores: &mut Scores<N>,
        sums: &mut Sums,
    ) {
        let Heads { heads, value, .. } = *self.heads;
        let (rows, keys, held) = (self.rows, self.keys(), self.held());
        let at = (self.start + self.first) * heads * value + self.head * value;
        let dy = Matrix::of(N::values(&dy[at..]), rows, value, heads * value);
        let p = Matrix::of(N::values(&scores.factor[..held]), rows, keys, keys);
        let dv = MatrixMut::new(&mut sums.dv, keys, value);
        product(dv, Output::Add, 1.0, p.transposed(), dy);
        let dp = &mut scores.dp[..held];
        let out = MatrixMut::new(dp, rows, keys);
        product(out, Output::Write, 1.0, dy, factors.v_turned.part(value, keys));
        through_softmax(&scores.p[..held], dp, keys, self.first, &mut scores.factor[..held]);
    }

    /// Writes `dq` and adds to `dk`, both still turned.
    fn through_scores<N: Number>(
        &self,
        turned: &Keys<N>,
        factors: &Factors,
        scores: &Scores<N>,
        sums: &mut Sums,
    ) {
        let (key, rows, keys, scale) = (self.heads.key(), self.rows, self.keys(), self.heads.scale);
        let ds = Matrix::of(N::values(&scores.factor[..self.held()]), rows, keys, keys);
        let dq = MatrixMut::new(&mut sums.dq[self.first * key..], rows, key);
        product(dq, Output::Write, scale, ds, factors.k.part(keys, key));
        let dk = MatrixMut::new(&mut sums.dk, keys, key);
        product(dk, Output::Add, scale, ds.transposed(), turned.q().rows(self.first..keys));
    }
}

vectorised! {
    /// `p = exp(score - log_sum)` for the seen keys, zero for the others; in place, and rounded.
    fn exponentials<N: Number>(scores: &mut [f32], p: &mut [N], seen: usize, log_sum: f32) {
        for (score, p) in scores[..seen].iter_mut().zip(&mut *p) {
            *score = exp(*score - log_sum);
            *p = N::nearest(*score);
        }
        scores[seen..].fill(0.0);
        p[seen..].fill(N::ZERO);
    }

    /// Writes `ds = p (dp - sum p dp)`.
    fn through_softmax<N: Number>(
        p: &[f32],
        dp: &[f32],
        keys: usize,
        first: usize,
        ds: &mut [N],
    ) {
        let rows = p.chunks_exact(keys).zip(dp.chunks_exact(keys));
        for (row, ((p, dp), ds)) in rows.zip(ds.chunks_exact_mut(keys)).enumerate() {
            let (ds, masked) = ds.split_at_mut(first + row + 1);
            let (p, dp) = (&p[..ds.len()], &dp[..ds.len()]);
            let along = sum_of(p, dp, |p, dp| p * dp);
            let terms = ds.iter_mut().zip(p.iter().zip(dp));
            terms.for_each(|(ds, (p, dp))| *ds = N::nearest(p * (*dp - along)));
            masked.fill(N::ZERO);
        }
    }
}

/// Turns a head's `dq` back, and hands its sums to `dx` and to the shared `dk_rope`.
fn put_back<N: Number>(
    heads: &Heads,
    rotation: &Rotation,
    start: usize,
    head: usize,
    sums: &mut Sums,
    dx: &mut Gradients<'_, N>,
) {
    let (nope, rope, key, value) = (heads.nope, heads.rope, heads.key(), heads.value);
    for (position, dk) in sums.dk.chunks_exact(key).enumerate() {
        let token = start + position;
        let dq = &mut sums.dq[position * key..][..key];
        rotation.turn_back(position, &mut dq[nope..]);
        scaled(dq, 1.0, &mut dx.q[(token * heads.heads + head) * key..][..key]);
        let kv = &mut dx.kv[token * heads.kv_width() + head * (nope + value)..][..nope + value];
        scaled(&dk[..nope], 1.0, &mut kv[..nope]);
        scaled(&sums.dv[position * value..][..value], 1.0, &mut kv[nope..]);
        add(&mut sums.dk_rope[position * rope..][..rope], &dk[nope..]);
    }
}
