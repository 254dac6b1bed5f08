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
    reduce::{LANES, dots, fused_dot},
    vector::vectorised,
};

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
    shares: Vec<f32>,
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
        scratch.shares.resize(heads * self.tokens, 0.0);
        let Scratch { scores, shares, rows } = scratch;
        score(&self.rows, q, width, scale, scores);
        softmax(scores, self.tokens, self.tokens - 1, heads, rows, shares);
        mix(&self.rows, width, shares, mixed);
    }
}

/// Mixes of some heads, so many columns at a time.
#[inline(always)]
fn mix_heads<const N: usize>(rows: &[f32], width: usize, shares: &[f32], mixed: &mut [f32]) {
    let (seen, rank) = (shares.len() / N, mixed.len() / N);
    let shares: [&[f32]; N] = std::array::from_fn(|head| &shares[head * seen..][..seen]);
    let whole = rank / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let mut sums = [[0.0_f32; LANES]; N];
        for (u, row) in rows.chunks_exact(width).enumerate() {
            let x: [f32; LANES] = *row[first..].first_chunk().expect("so many columns");
            for head in 0..N {
                let share = shares[head][u];
                sums[head] = std::array::from_fn(|lane| share.mul_add(x[lane], sums[head][lane]));
            }
        }
        for (head, sums) in sums.iter().enumerate() {
            mixed[head * rank + first..][..LANES].copy_from_slice(sums);
        }
    }
    for (head, shares) in shares.iter().enumerate() {
        for column in whole..rank {
            let terms = rows.chunks_exact(width).zip(*shares);
            let sum = terms.fold(0.0, |sum: f32, (x, share)| share.mul_add(x[column], sum));
            mixed[head * rank + column] = sum;
        }
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
                    *score = scale * fused_dot(q, row);
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
