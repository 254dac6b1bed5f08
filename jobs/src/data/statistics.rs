//! What a model that knows only word frequencies would reach.

/// Entropy of the token frequencies, in nats per token.
///
/// ```text
/// H = - sum_v p(v) ln p(v),   p(v) = count(v) / tokens
/// ```
///
/// A model that has learnt anything beyond frequencies has a smaller loss; one that has learnt
/// nothing has `ln(vocab)`. Tokens outside `0..vocab` do not count; no token at all gives zero.
pub fn unigram_nats(tokens: impl IntoIterator<Item = i32>, vocab: usize) -> f64 {
    entropy_nats(&counts(tokens, vocab).map(|count| count as f64).collect::<Vec<_>>())
}

/// How often each token occurs.
fn counts(tokens: impl IntoIterator<Item = i32>, vocab: usize) -> impl Iterator<Item = u64> {
    let mut counts = vec![0_u64; vocab];
    for token in tokens {
        if let Some(count) = usize::try_from(token).ok().and_then(|v| counts.get_mut(v)) {
            *count += 1;
        }
    }
    counts.into_iter()
}

/// Share of each token among all.
pub(super) fn shares(tokens: impl IntoIterator<Item = i32>, vocab: usize) -> Vec<f64> {
    let counts: Vec<u64> = counts(tokens, vocab).collect();
    let all = counts.iter().sum::<u64>().max(1) as f64;
    counts.into_iter().map(|count| count as f64 / all).collect()
}

/// Entropy of frequencies that need not sum to one.
pub(super) fn entropy_nats(frequencies: &[f64]) -> f64 {
    let all: f64 = frequencies.iter().sum();
    let held = frequencies.iter().filter(|&&f| f > 0.0);
    held.map(|f| -(f / all) * (f / all).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_frequencies_give_the_logarithm_of_their_number() {
        let nats = unigram_nats((0..800).map(|i| i % 8), 100);
        assert!((nats - 8_f64.ln()).abs() < 1e-12, "{nats}");
    }

    #[test]
    fn one_token_has_no_entropy() {
        assert_eq!(unigram_nats([5; 9], 6), 0.0);
        assert_eq!(unigram_nats([], 6), 0.0);
    }
}
