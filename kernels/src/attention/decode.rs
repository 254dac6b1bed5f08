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
use crate::{
    reduce::{LANES, dots, sum_of},
    vector::vectorised,
};

/// Columns of a mix that are summed side by side.
const COLUMNS: usize = 32;

/// Heads that share a look at the cache.
const HEADS: usize = 4;

/// What generation keeps of one text for one attention.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    tokens: usize,
    /// Latents after the norm, beside turned keys: `[tokens, kv_rank + rope]`.
    rows: Vec<f32>,
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
        4 * self.rows.len()
    }

    /// Adds a token: its latent after the norm and its turned key, as wide as those before.
    pub fn push(&mut self, latent: &[f32], key: &[f32]) {
        self.rows.extend_from_slice(latent);
        self.rows.extend_from_slice(key);
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
        let width = self.rows.len() / self.tokens;
        let heads = q.len() / width;
        scratch.scores.resize(heads * self.tokens, 0.0);
        scratch.rows.resize(heads, Row::default());
        let scores = &mut scratch.scores;
        score(&self.rows, q, width, scale, scores);
        softmax(scores, self.tokens, self.tokens - 1, heads, &mut scratch.rows);
        mix(&self.rows, width, scores, mixed);
    }
}

/// Mixes of some heads, as many columns at a time.
#[inline(always)]
fn mix_heads<const N: usize>(rows: &[f32], width: usize, shares: &[f32], mixed: &mut [f32]) {
    let (seen, rank) = (shares.len() / N, mixed.len() / N);
    let shares: [&[f32]; N] = std::array::from_fn(|head| &shares[head * seen..][..seen]);
    for first in (0..rank).step_by(COLUMNS) {
        let columns = COLUMNS.min(rank - first);
        let mut sums = [[0.0_f32; COLUMNS]; N];
        if columns == COLUMNS {
            for (u, row) in rows.chunks_exact(width).enumerate() {
                let row = row[first..].first_chunk().expect("so many columns");
                for head in 0..N {
                    add_scaled(&mut sums[head], shares[head][u], row);
                }
            }
        } else {
            for (u, row) in rows.chunks_exact(width).enumerate() {
                let row = &row[first..][..columns];
                for (sums, shares) in sums.iter_mut().zip(shares) {
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += shares[u] * x);
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
    fn score(rows: &[f32], q: &[f32], width: usize, scale: f32, scores: &mut [f32]) {
        let seen = rows.len() / width;
        for (several, rows) in rows.chunks(LANES * width).enumerate() {
            for (head, q) in q.chunks_exact(width).enumerate() {
                let scores = &mut scores[head * seen + several * LANES..];
                if rows.len() == LANES * width {
                    let dots = dots(q, rows);
                    scores.iter_mut().zip(dots).for_each(|(score, dot)| *score = scale * dot);
                    continue;
                }
                for (score, row) in scores.iter_mut().zip(rows.chunks_exact(width)) {
                    *score = scale * sum_of(q, row, |q, x| q * x);
                }
            }
        }
    }

    fn mix(rows: &[f32], width: usize, shares: &[f32], mixed: &mut [f32]) {
        let seen = rows.len() / width;
        let rank = mixed.len() / (shares.len() / seen);
        for (shares, mixed) in shares.chunks(HEADS * seen).zip(mixed.chunks_mut(HEADS * rank)) {
            if shares.len() == HEADS * seen {
                mix_heads::<HEADS>(rows, width, shares, mixed);
                continue;
            }
            for (shares, mixed) in shares.chunks_exact(seen).zip(mixed.chunks_exact_mut(rank)) {
                mix_heads::<1>(rows, width, shares, mixed);
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
