//! Causal attention with a rotary part of the key that all heads share, in tiles of query rows.
//!
//! ```text
//! q[t, h] = [nope | turned rope]     k[t, h] = [nope of head h | turned k_rope of t]
//! a[t, h, u] = softmax over u <= t of scale * q[t, h] . k[u, h]
//! y[t, h] = sum_u a[t, h, u] * v[u, h]
//! ```
//!
//! `q` is `[t, h, nope+rope]`, `kv` is `[t, h, nope+value]`, `k_rope` is `[t, rope]`, `y` is
//! `[t, h, value]`. A tile of scores has 64 rows and as many columns as there are keys so far, so
//! the softmax of a row is exact and nothing of size `t x t` exists. Keys and values are packed
//! once for all tiles of a head; products are in the format of the inputs, the softmax in F32.
//! What is saved for the gradient is the log-sum-exp of each (token, head), as in Dao,
//! arXiv:2307.08691, section 3.1.

mod backward;
mod decode;
mod forward;
#[cfg(test)]
mod tests;

pub use self::{
    backward::{Gradients, backward},
    decode::{Cache, Scratch},
    forward::forward,
};

use crate::{
    exp::exp,
    gemm::Matrix,
    number::Number,
    reduce::{max_of, sum_of},
    rope::Rotation,
    vector::vectorised,
};

/// Query rows worked on at a time.
const TILE: usize = 64;

/// Extents of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Width of a head's query and key without position.
    pub nope: usize,
    /// Width of the rotary part.
    pub rope: usize,
    /// Width of a head's value.
    pub value: usize,
    /// Factor of the products before the softmax.
    pub scale: f32,
}

impl Heads {
    /// Width of a head's query and key.
    fn key(&self) -> usize {
        self.nope + self.rope
    }

    /// Width of a token in `kv`.
    fn kv_width(&self) -> usize {
        self.heads * (self.nope + self.value)
    }
}

/// What attention reads; not yet turned.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, N> {
    /// `[t, h, nope+rope]`.
    pub q: &'a [N],
    /// `[t, h, nope+value]`.
    pub kv: &'a [N],
    /// `[t, rope]`.
    pub k_rope: &'a [N],
}

impl<'a, N: Number> Inputs<'a, N> {
    /// Values of one head of the sequence that begins at token `start`: `[s, value]`.
    fn v(&self, heads: &Heads, sequence: usize, start: usize, head: usize) -> Matrix<'a> {
        let from = start * heads.kv_width() + head * (heads.nope + heads.value) + heads.nope;
        Matrix::of(N::values(&self.kv[from..]), sequence, heads.value, heads.kv_width())
    }
}

/// Queries and keys of one head of one sequence, turned and side by side: `[s, nope+rope]`.
struct Keys<N> {
    q: Vec<N>,
    k: Vec<N>,
    /// The part of the keys that all heads share, turned: `[s, rope]`.
    k_rope: Vec<N>,
    sequence: usize,
}

impl<N: Number> Keys<N> {
    fn new(heads: &Heads, sequence: usize) -> Self {
        let values = vec![N::ZERO; sequence * heads.key()];
        Keys { q: values.clone(), k: values, k_rope: Vec::new(), sequence }
    }

    fn q(&self) -> Matrix<'_> {
        self.matrix(&self.q)
    }

    fn k(&self) -> Matrix<'_> {
        self.matrix(&self.k)
    }

    fn matrix<'a>(&self, values: &'a [N]) -> Matrix<'a> {
        let key = values.len() / self.sequence;
        Matrix::of(N::values(values), self.sequence, key, key)
    }

    /// Turns the shared part of the keys of the sequence that begins at token `start`.
    fn load_sequence(
        &mut self,
        heads: &Heads,
        rotation: &Rotation,
        x: Inputs<'_, N>,
        start: usize,
    ) {
        let values = self.sequence * heads.rope;
        self.k_rope.clear();
        self.k_rope.extend_from_slice(&x.k_rope[start * heads.rope..][..values]);
        for (position, k) in self.k_rope.chunks_exact_mut(heads.rope.max(1)).enumerate() {
            rotation.turn(position, k);
        }
    }

    /// Gathers one head of the sequence that begins at token `start`.
    fn load_head(
        &mut self,
        heads: &Heads,
        rotation: &Rotation,
        x: Inputs<'_, N>,
        start: usize,
        head: usize,
    ) {
        let (nope, rope, key) = (heads.nope, heads.rope, heads.key());
        let rows = self.q.chunks_exact_mut(key).zip(self.k.chunks_exact_mut(key));
        for (position, (q, k)) in rows.enumerate() {
            let token = start + position;
            q.copy_from_slice(&x.q[(token * heads.heads + head) * key..][..key]);
            rotation.turn(position, &mut q[nope..]);
            let from = token * heads.kv_width() + head * (nope + heads.value);
            k[..nope].copy_from_slice(&x.kv[from..][..nope]);
            k[nope..].copy_from_slice(&self.k_rope[position * rope..][..rope]);
        }
    }
}

/// Largest input and log-sum-exp of a softmax row.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    largest: f32,
    log_sum: f32,
}

vectorised! {
    /// Turns rows of scores into probabilities, in another format; the scores are lost.
    ///
    /// Row `i` sees the first `first + i / share + 1` keys.
    fn softmax<N: Number>(
        scores: &mut [f32],
        keys: usize,
        first: usize,
        share: usize,
        rows: &mut [Row],
        shares: &mut [N],
    ) {
        let both = scores.chunks_exact_mut(keys).zip(shares.chunks_exact_mut(keys));
        for (i, ((scores, shares), row)) in both.zip(rows).enumerate() {
            let seen = first + i / share + 1;
            let (shares, masked) = shares.split_at_mut(seen);
            let seen = &mut scores[..seen];
            let largest = max_of(seen);
            seen.iter_mut().for_each(|x| *x = exp(*x - largest));
            let sum = sum_of(seen, seen, |x, _| x);
            let inverse = 1.0 / sum;
            shares.iter_mut().zip(seen).for_each(|(share, x)| *share = N::nearest(*x * inverse));
            masked.fill(N::ZERO);
            *row = Row { largest, log_sum: largest + sum.ln() };
        }
    }
}
