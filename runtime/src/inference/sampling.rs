//! Drawing a token from logits.

use std::cmp::Ordering;

use kernels::reduce::first_largest;

/// Tokens that are sorted at first; a trained model rarely needs more for its `top_p`.
const FIRST: usize = 64;

/// Draws a token: softmax at a temperature over the smallest set of tokens with mass `top_p`.
///
/// `uniform` is a number in `[0, 1)`. Temperature 0 takes the likeliest token, the lower one of
/// two equal ones.
///
/// # Panics
///
/// If there is no logit.
pub fn sample(logits_v: &[f32], temperature: f32, top_p: f32, uniform: f32) -> i32 {
    if temperature <= 0.0 {
        return first_largest(logits_v) as i32;
    }
    let most = logits_v[first_largest(logits_v)];
    let mass = |logit: &f32| f64::from((logit - most) / temperature).exp();
    let masses: Vec<f64> = logits_v.iter().map(mass).collect();
    let kept = kept(logits_v, &masses, f64::from(top_p));
    let mut left = f64::from(uniform) * kept.iter().map(|token| masses[*token]).sum::<f64>();
    for token in &kept {
        left -= masses[*token];
        if left < 0.0 {
            return *token as i32;
        }
    }
    kept[kept.len() - 1] as i32
}

/// The likeliest tokens whose share of the mass reaches `top_p`, likeliest first.
///
/// Sorts no more than it has to: the first few, and then as many again as it has.
fn kept(logits_v: &[f32], masses: &[f64], top_p: f64) -> Vec<usize> {
    let order = |a: &usize, b: &usize| likelier(logits_v, *a, *b);
    let total: f64 = masses.iter().sum();
    let mut tokens: Vec<usize> = (0..logits_v.len()).collect();
    let (mut sorted, mut share) = (0, 0.0);
    while sorted < tokens.len() {
        let rest = &mut tokens[sorted..];
        let next = rest.len().min(sorted.max(FIRST));
        if next < rest.len() {
            rest.select_nth_unstable_by(next, order);
        }
        rest[..next].sort_unstable_by(order);
        for place in sorted..sorted + next {
            share += masses[tokens[place]] / total;
            if top_p <= share {
                tokens.truncate(place + 1);
                return tokens;
            }
        }
        sorted += next;
    }
    tokens
}

/// Larger logits first; of equal ones the lower token.
fn likelier(logits_v: &[f32], a: usize, b: usize) -> Ordering {
    logits_v[b].total_cmp(&logits_v[a]).then(a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_obeys_temperature_and_mass() {
        let logits = [0.0, 2.0, 1.0, 2.0];
        assert_eq!(sample(&logits, 0.0, 1.0, 0.9), 1);
        assert_eq!(sample(&logits, 1.0, 0.5, 0.999), 3);
        assert_eq!(sample(&logits, 1.0, 1.0, 0.999), 0);
        assert_eq!(sample(&logits, 1.0, 1.0, 0.0), 1);
    }

    /// The same with all tokens sorted, the mass added in that order.
    fn plainly(logits_v: &[f32], temperature: f32, top_p: f32, uniform: f32) -> i32 {
        let mut order: Vec<usize> = (0..logits_v.len()).collect();
        order.sort_by(|a, b| likelier(logits_v, *a, *b));
        if temperature <= 0.0 {
            return order[0] as i32;
        }
        let most = logits_v[order[0]];
        let mass = |token: &usize| f64::from((logits_v[*token] - most) / temperature).exp();
        let total: f64 = order.iter().map(mass).sum();
        let mut share = 0.0;
        let within = order.iter().position(|token| {
            share += mass(token) / total;
            f64::from(top_p) <= share
        });
        order.truncate(within.map_or(order.len(), |last| last + 1));
        let mut left = f64::from(uniform) * order.iter().map(mass).sum::<f64>();
        let drawn = order.iter().find(|token| {
            left -= mass(token);
            left < 0.0
        });
        *drawn.unwrap_or(&order[order.len() - 1]) as i32
    }

    #[test]
    fn sorting_a_part_draws_what_sorting_all_does() {
        use kernels::random::{normal, uniform};
        for case in 0..3_000_u64 {
            let number = |index| uniform(case, index);
            let tokens = 1 + (number(0) * 700.0) as u64;
            // Steps of a half make many equal ones.
            let step = if case % 3 == 0 { 2.0 } else { 1e6 };
            let logit = |i| (normal(case, 100 + i) * 4.0 * number(1) as f32 * step).round() / step;
            let logits: Vec<f32> = (0..tokens).map(logit).collect();
            let temperature = if case % 7 == 0 { 0.0 } else { 0.1 + 2.0 * number(2) as f32 };
            let top_p = if case % 5 == 0 { 1.0 } else { 0.01 + 0.99 * number(3) as f32 };
            for draw in 4..8 {
                let uniform = number(draw) as f32;
                let drawn = sample(&logits, temperature, top_p, uniform);
                assert_eq!(drawn, plainly(&logits, temperature, top_p, uniform), "case {case}");
            }
        }
    }

    #[test]
    fn the_likeliest_is_the_first_of_the_largest_whatever_their_signs() {
        for logits in [
            vec![-0.0, 0.0, 0.0],
            vec![-3.0, -1.5, -1.5, -2.0],
            vec![f32::NEG_INFINITY, f32::NEG_INFINITY],
            vec![1.0, f32::INFINITY, f32::INFINITY, 2.0],
        ] {
            assert_eq!(
                sample(&logits, 0.0, 1.0, 0.0),
                plainly(&logits, 0.0, 1.0, 0.0),
                "{logits:?}"
            );
        }
    }
}
