//! Attention of new tokens over cached latents, with the expansion of keys and values absorbed.
//!
//! ```text
//! score[n, h, u] = scale * ((q_nope W_k^h) . latent[u] + turned q_rope . k_rope[u])
//! y[n, h] = W_v^h sum_u a[n, h, u] latent[u]
//! ```
//!
//! Keys and values are never expanded, so the cache holds `kv_rank + rope` numbers per token;
//! DeepSeek-V2, arXiv:2405.04434, section 2.1.2. It differs from the forward pass by rounding.

use super::{Heads, Row, TILE, softmax};
use crate::{
    gemm::{Matrix, MatrixMut, Output, product},
    rope::Rotation,
};

/// What generation keeps of all tokens up to the new ones, and the weight that expands it.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    /// `[h, nope+value, kv_rank]`.
    pub kv_weight: &'a [f32],
    /// Width of a latent.
    pub kv_rank: usize,
    /// `[all tokens, kv_rank]`, after their norm.
    pub latents: &'a [f32],
    /// `[all tokens, rope]`, turned.
    pub k_rope: &'a [f32],
}

/// Writes `y [n, h, value]` for the `n` tokens from position `first` on, of one sequence.
///
/// `q [n, h, nope+rope]` is not yet turned; `rotation` covers the new positions.
pub fn decode(
    heads: &Heads,
    rotation: &Rotation,
    cache: Cache<'_>,
    q: &[f32],
    first: usize,
    y: &mut [f32],
) {
    let (width, out) = (heads.heads * heads.key(), heads.heads * heads.value);
    let tokens = (TILE / heads.heads).max(1);
    let parts = q.chunks(tokens * width).zip(y.chunks_mut(tokens * out));
    for (part, (q, y)) in parts.enumerate() {
        let mut q = q.to_vec();
        for (i, q) in q.chunks_exact_mut(heads.key()).enumerate() {
            rotation.turn(part * tokens + i / heads.heads, &mut q[heads.nope..]);
        }
        attend(heads, cache, &q, first + part * tokens, y);
    }
}

/// Rows are (token, head) pairs, so that all heads share one product with the latents.
fn attend(heads: &Heads, cache: Cache<'_>, q: &[f32], first: usize, y: &mut [f32]) {
    let (h, rank, key) = (heads.heads, cache.kv_rank, heads.key());
    let rows = q.len() / key;
    let keys = first + rows / h;
    let latents = Matrix::new(cache.latents, keys, rank);
    let k_rope = Matrix::new(cache.k_rope, keys, heads.rope);

    let absorbed = absorbed(heads, cache, q, rows / h);
    let mut scores = vec![0.0; rows * keys];
    let out = MatrixMut::new(&mut scores, rows, keys);
    let absorbed = Matrix::new(&absorbed, rows, rank);
    product(out, Output::Write, heads.scale, absorbed, latents.transposed());
    let q_rope = Matrix::strided(&q[heads.nope..], rows, heads.rope, key);
    let out = MatrixMut::new(&mut scores, rows, keys);
    product(out, Output::Add, heads.scale, q_rope, k_rope.transposed());
    softmax(&mut scores, keys, first, h, &mut vec![Row::default(); rows]);

    let mut mixed = vec![0.0; rows * rank];
    let scores = Matrix::new(&scores, rows, keys);
    product(MatrixMut::new(&mut mixed, rows, rank), Output::Write, 1.0, scores, latents);
    for head in 0..h {
        let value = (head * (heads.nope + heads.value) + heads.nope) * rank;
        let w = Matrix::new(&cache.kv_weight[value..], heads.value, rank).transposed();
        let mixed = Matrix::strided(&mixed[head * rank..], rows / h, rank, h * rank);
        let y = &mut y[head * heads.value..];
        let y = MatrixMut::strided(y, rows / h, heads.value, h * heads.value);
        product(y, Output::Write, 1.0, mixed, w);
    }
}

/// `q_nope W_k` of every (token, head).
fn absorbed(heads: &Heads, cache: Cache<'_>, q: &[f32], tokens: usize) -> Vec<f32> {
    let (h, rank, key) = (heads.heads, cache.kv_rank, heads.key());
    let mut absorbed = vec![0.0; tokens * h * rank];
    for head in 0..h {
        let q = Matrix::strided(&q[head * key..], tokens, heads.nope, h * key);
        let from = head * (heads.nope + heads.value) * rank;
        let w = Matrix::new(&cache.kv_weight[from..], heads.nope, rank);
        let out = MatrixMut::strided(&mut absorbed[head * rank..], tokens, rank, h * rank);
        product(out, Output::Write, 1.0, q, w);
    }
    absorbed
}
