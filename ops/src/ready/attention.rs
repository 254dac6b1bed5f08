//! Attention over latents that are kept from token to token.

use kernels::{
    attention::{Cache, Scratch},
    rope::Rotation,
};

use super::{Inputs, Rows, Weight, weight::Left};
use crate::{DType, MlaAttention, Tensor};

/// Positions for which the rotation is worked out at first.
const POSITIONS: usize = 256;

/// An attention with the projection of its keys and values absorbed, ready to read token by token.
#[derive(Debug)]
pub struct ReadyAttention {
    op: MlaAttention,
    dtype: DType,
    rank: usize,
    /// Of each head, from the part of a query without position to a latent.
    keys: Vec<Weight>,
    /// Of each head, from a latent to a value.
    values: Vec<Weight>,
}

/// What one attention keeps of all texts.
#[derive(Debug)]
pub struct Latents {
    texts: Vec<Cache>,
    rotation: Rotation,
    scratch: Scratch,
    queries: Vec<f32>,
    mixed: Vec<f32>,
}

impl Latents {
    /// Bytes kept of one text.
    pub fn bytes(&self, text: usize) -> usize {
        self.texts[text].bytes()
    }
}

impl ReadyAttention {
    /// Packs the projection `kv_weight [h(nope+value), kv_rank]` of keys and values.
    pub fn new(op: &MlaAttention, kv_weight: &Tensor, dtype: DType) -> Self {
        let MlaAttention { heads, nope, value, .. } = *op;
        let rank = kv_weight.shape()[1];
        let head = |head: usize| head * (nope + value);
        let key = |h| Weight::packed(kv_weight, head(h), nope, rank, true);
        let value = |h| Weight::packed(kv_weight, head(h) + nope, rank, value, false);
        let (keys, values) = ((0..heads).map(key).collect(), (0..heads).map(value).collect());
        ReadyAttention { op: op.clone(), dtype, rank, keys, values }
    }

    /// Nothing read yet of so many texts.
    pub fn latents(&self, texts: usize) -> Latents {
        let rotation = self.op.rotation(0, POSITIONS);
        let (queries, mixed) = (Vec::new(), Vec::new());
        let texts = vec![Cache::default(); texts];
        Latents { texts, rotation, scratch: Scratch::default(), queries, mixed }
    }

    /// Attention of new tokens, each over those of its text before it and itself.
    ///
    /// `texts` says of each row whose next token it is. Inputs are `q [t, h(nope+rope)]`, the
    /// normed latents `[t, kv_rank]` and `k_rope [t, rope]`; writes `[t, h value]`.
    pub fn run(&self, texts: &[usize], past: &mut Latents, x: Inputs<'_>, y: &mut Rows) {
        let MlaAttention { heads, nope, rope, value, .. } = self.op;
        let (key, width, mix) = (nope + rope, self.rank + rope, heads * self.rank);
        let rows = texts.len();
        past.queries.resize(rows * heads * width, 0.0);
        past.mixed.resize(rows * mix, 0.0);
        y.floats.resize(rows * heads * value, 0.0);
        let left = Left::new(x.floats(0), self.dtype);
        for (head, keys) in self.keys.iter().enumerate() {
            let absorbed = &mut past.queries[head * width..];
            keys.multiply_strided(
                rows,
                left.from(head * key, heads * key),
                absorbed,
                heads * width,
            );
        }
        self.mix(texts, past, x);
        let left = Left::new(&past.mixed, self.dtype);
        for (head, values) in self.values.iter().enumerate() {
            let to = &mut y.floats[head * value..];
            values.multiply_strided(rows, left.from(head * self.rank, mix), to, heads * value);
        }
        if self.dtype == DType::Bf16 {
            kernels::cast::round(&mut y.floats);
        }
    }

    /// Turns queries and keys, remembers the new tokens and mixes latents for each.
    fn mix(&self, texts: &[usize], past: &mut Latents, x: Inputs<'_>) {
        let MlaAttention { heads, nope, rope, .. } = self.op;
        let (width, mix, scale) = (self.rank + rope, heads * self.rank, self.op.scale());
        let mut turned = vec![0.0; rope];
        for (row, &text) in texts.iter().enumerate() {
            let position = past.texts[text].tokens();
            if past.rotation.positions() <= position {
                past.rotation = self.op.rotation(0, 2 * position);
            }
            turned.copy_from_slice(&x.floats(2)[row * rope..][..rope]);
            past.rotation.turn(position, &mut turned);
            past.texts[text].push(&x.floats(1)[row * self.rank..][..self.rank], &turned);
            let queries = &mut past.queries[row * heads * width..][..heads * width];
            let q = x.floats(0)[row * heads * (nope + rope)..].chunks_exact(nope + rope);
            for (query, q) in queries.chunks_exact_mut(width).zip(q) {
                query[self.rank..].copy_from_slice(&q[nope..]);
                past.rotation.turn(position, &mut query[self.rank..]);
            }
            let mixed = &mut past.mixed[row * mix..][..mix];
            past.texts[text].mix(queries, scale, &mut past.scratch, mixed);
        }
    }
}
