//! Attention of one token at a time over the latents of a text, with the expansion of keys and
//! values absorbed.
//!
//! ```text
//! score[h, u] = scale * ((q_nope W_k^h) . latent[u] + turned q_rope . k_rope[u])
//! mixed[h] = sum_u softmax_u(score[h, :]) latent[u]            y[h] = W_v^h mixed[h]
//! ```
//!
//! The products with `W_k` and `W_v` are the caller's, since all texts share them. Keys and values
//! are never expanded: DeepSeek-V2, arXiv:2405.04434, section 2.1.2. Every sum goes in rising
//! order of its terms, so a head's bits depend on its text alone.

use super::{Row, softmax};
use crate::vector::vectorised;

/// Tokens whose scores are summed side by side.
const BLOCK: usize = 32;

/// Columns of a mix that are summed side by side.
const COLUMNS: usize = 32;

/// Heads that share a look at the cache.
const HEADS: usize = 4;

/// What generation keeps of one text for one attention.
///
/// Latents stand there twice, since scores want tokens side by side and mixes want columns.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    tokens: usize,
    /// Latents and turned keys, `[blocks of 32 tokens][kv_rank + rope][32]`.
    keys: Vec<f32>,
    /// Latents `[tokens, kv_rank]`.
    latents: Vec<f32>,
}

/// Memory for the scores of one token.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    rows: Vec<Row>,
}

impl Cache {
    /// Tokens read so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes of what is kept.
    pub fn bytes(&self) -> usize {
        4 * (self.keys.len() + self.latents.len())
    }

    /// Adds a token: its latent after the norm and its turned key, as wide as those before.
    pub fn push(&mut self, latent: &[f32], key: &[f32]) {
        let (width, place) = (latent.len() + key.len(), self.tokens % BLOCK);
        if place == 0 {
            self.keys.resize(self.keys.len() + width * BLOCK, 0.0);
        }
        let from = self.tokens / BLOCK * width * BLOCK;
        let columns = self.keys[from..].chunks_exact_mut(BLOCK);
        columns.zip(latent.iter().chain(key)).for_each(|(column, x)| column[place] = *x);
        self.latents.extend_from_slice(latent);
        self.tokens += 1;
    }

    /// Writes `mixed [h, kv_rank]` of the token that was added last.
    ///
    /// `q [h, kv_rank + rope]` is `q_nope W_k` beside the turned `q_rope` of every head.
    ///
    /// # Panics
    ///
    /// If there is no token.
    pub fn mix(&self, q: &[f32], scale: f32, scratch: &mut Scratch, mixed: &mut [f32]) {
        let rank = self.latents.len() / self.tokens;
        let blocks = self.tokens.div_ceil(BLOCK);
        let (width, seen) = (self.keys.len() / (blocks * BLOCK), blocks * BLOCK);
        let heads = q.len() / width;
        scratch.scores.resize(heads * seen, 0.0);
        scratch.rows.resize(heads, Row::default());
        let scores = &mut scratch.scores;
        score(&self.keys, q, width, scale, scores, seen);
        softmax(scores, seen, self.tokens - 1, heads, &mut scratch.rows);
        mix(&self.latents, rank, scores, seen, mixed);
    }
}

/// Scores of some heads with all blocks.
#[inline(always)]
fn score_heads<const N: usize>(
    keys: &[f32],
    q: &[f32],
    width: usize,
    scale: f32,
    scores: &mut [f32],
    seen: usize,
) {
    let q: [&[f32]; N] = std::array::from_fn(|head| &q[head * width..][..width]);
    for (block, keys) in keys.chunks_exact(width * BLOCK).enumerate() {
        let mut sums = [[0.0_f32; BLOCK]; N];
        for (k, keys) in keys.as_chunks::<BLOCK>().0.iter().enumerate() {
            for head in 0..N {
                add_scaled(&mut sums[head], q[head][k], keys);
            }
        }
        for (head, sums) in sums.iter().enumerate() {
            let scores = &mut scores[head * seen + block * BLOCK..][..BLOCK];
            scores.iter_mut().zip(sums).for_each(|(score, sum)| *score = scale * sum);
        }
    }
}

/// Mixes of some heads, as many columns at a time.
#[inline(always)]
fn mix_heads<const N: usize>(
    latents: &[f32],
    rank: usize,
    shares: &[f32],
    seen: usize,
    mixed: &mut [f32],
) {
    let shares: [&[f32]; N] = std::array::from_fn(|head| &shares[head * seen..][..seen]);
    for first in (0..rank).step_by(COLUMNS) {
        let columns = COLUMNS.min(rank - first);
        let mut sums = [[0.0_f32; COLUMNS]; N];
        if columns == COLUMNS {
            for (u, latent) in latents.chunks_exact(rank).enumerate() {
                let latent = latent[first..].first_chunk().expect("so many columns");
                for head in 0..N {
                    add_scaled(&mut sums[head], shares[head][u], latent);
                }
            }
        } else {
            for (u, latent) in latents.chunks_exact(rank).enumerate() {
                for (sums, shares) in sums.iter_mut().zip(shares) {
                    sums.iter_mut().zip(&latent[first..]).for_each(|(s, x)| *s += shares[u] * x);
                }
            }
        }
        for (head, sums) in sums.iter().enumerate() {
            mixed[head * rank + first..][..columns].copy_from_slice(&sums[..columns]);
        }
    }
}

/// Adds so many times `x`; a known number of columns makes whole vectors.
#[inline(always)]
fn add_scaled<const N: usize>(sums: &mut [f32; N], share: f32, x: &[f32; N]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum += share * x;
    }
}

vectorised! {
    fn score(keys: &[f32], q: &[f32], width: usize, scale: f32, scores: &mut [f32], seen: usize) {
        let several = q.chunks(HEADS * width).zip(scores.chunks_mut(HEADS * seen));
        for (q, scores) in several {
            if q.len() == HEADS * width {
                score_heads::<HEADS>(keys, q, width, scale, scores, seen);
                continue;
            }
            for (q, scores) in q.chunks_exact(width).zip(scores.chunks_exact_mut(seen)) {
                score_heads::<1>(keys, q, width, scale, scores, seen);
            }
        }
    }

    fn mix(latents: &[f32], rank: usize, shares: &[f32], seen: usize, mixed: &mut [f32]) {
        let several = shares.chunks(HEADS * seen).zip(mixed.chunks_mut(HEADS * rank));
        for (shares, mixed) in several {
            if shares.len() == HEADS * seen {
                mix_heads::<HEADS>(latents, rank, shares, seen, mixed);
                continue;
            }
            for (shares, mixed) in shares.chunks_exact(seen).zip(mixed.chunks_exact_mut(rank)) {
                mix_heads::<1>(latents, rank, shares, seen, mixed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal;

    #[test]
    fn a_mix_is_that_of_the_plain_formula_for_any_number_of_tokens_and_heads() {
        for (tokens, heads, rank, rope) in [(1, 1, 3, 2), (31, 4, 16, 4), (33, 5, 20, 2)] {
            let width = rank + rope;
            let random = |key, n: usize| (0..n as u64).map(|i| normal(key, i)).collect::<Vec<_>>();
            let (rows, q) = (random(1, tokens * width), random(2, heads * width));
            let mut cache = Cache::default();
            rows.chunks(width).for_each(|row| cache.push(&row[..rank], &row[rank..]));
            let mut mixed = vec![f32::NAN; heads * rank];
            cache.mix(&q, 0.3, &mut Scratch::default(), &mut mixed);
            for (q, mixed) in q.chunks(width).zip(mixed.chunks(rank)) {
                let dot = |row: &[f32]| -> f64 {
                    q.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let weights: Vec<f64> = rows.chunks(width).map(|r| (0.3 * dot(r)).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (column, mixed) in mixed.iter().enumerate() {
                    let row = |u: usize| f64::from(rows[u * width + column]);
                    let sum: f64 = weights.iter().enumerate().map(|(u, w)| w * row(u)).sum();
                    assert!((f64::from(*mixed) - sum / total).abs() < 1e-5);
                }
            }
        }
    }
}
