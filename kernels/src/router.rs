//! Scores, choice and shares of the router, and the gradient of its logits.
//!
//! DeepSeek-V3, arXiv:2412.19437, equations 12 to 16.

use crate::{exp::sigmoid, vector::vectorised};

/// Added to the sum of the chosen scores, so that a token with none divides safely.
const SMALLEST_SUM: f32 = 1e-20;

/// How experts are chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Choice {
    /// Number of experts, a multiple of `groups`.
    pub experts: usize,
    /// Experts chosen for each token.
    pub per_token: usize,
    /// Groups of neighbouring experts.
    pub groups: usize,
    /// Groups open to each token.
    pub groups_per_token: usize,
}

vectorised! {
    /// Turns logits into scores, in place.
    pub fn scores(logits: &mut [f32]) {
        logits.iter_mut().for_each(|x| *x = sigmoid(*x));
    }
}

/// Writes the chosen experts of each token, largest `scores [t, e] + bias [e]` first.
///
/// Of equal scores the lower number comes first.
pub fn choose(how: &Choice, scores: &[f32], bias: &[f32], chosen: &mut [i32]) {
    let mut biased = vec![0.0; how.experts];
    let rows = scores.chunks_exact(how.experts).zip(chosen.chunks_exact_mut(how.per_token));
    for (scores, chosen) in rows {
        for ((biased, score), bias) in biased.iter_mut().zip(scores).zip(bias) {
            *biased = score + bias;
        }
        if how.groups_per_token == how.groups {
            best(&biased, 0..how.experts as i32, chosen);
        } else {
            best(&biased, open_experts(how, &biased), chosen);
        }
    }
}

/// Experts in the groups with the largest sum of their two best scores.
fn open_experts(how: &Choice, biased: &[f32]) -> impl Iterator<Item = i32> {
    let size = how.experts / how.groups;
    let sum_of_two = |group: &[f32]| {
        let mut two = vec![0; 2.min(size)];
        best(group, 0..size as i32, &mut two);
        two.iter().map(|&i| group[i as usize]).sum()
    };
    let sums: Vec<f32> = biased.chunks_exact(size).map(sum_of_two).collect();
    let mut groups = vec![0; how.groups_per_token];
    best(&sums, 0..how.groups as i32, &mut groups);
    let size = size as i32;
    groups.into_iter().flat_map(move |group| group * size..(group + 1) * size)
}

/// Writes the indices among `open` with the largest values, largest first, of equal values the
/// lower index first; as many as there is room for.
fn best(values: &[f32], open: impl Iterator<Item = i32>, chosen: &mut [i32]) {
    let comes_first = |a: i32, b: i32| {
        let order = values[b as usize].total_cmp(&values[a as usize]);
        order.then(a.cmp(&b)).is_lt()
    };
    let mut held = 0;
    for index in open {
        if held == chosen.len() && held > 0 && !comes_first(index, chosen[held - 1]) {
            continue;
        }
        // The last one makes room, if there is none; those that come later move up.
        let mut at = held.min(chosen.len().saturating_sub(1));
        while at > 0 && comes_first(index, chosen[at - 1]) {
            chosen[at] = chosen[at - 1];
            at -= 1;
        }
        if let Some(place) = chosen.get_mut(at) {
            *place = index;
        }
        held = (held + 1).min(chosen.len());
    }
}

/// Writes the chosen scores and `share = scaling * score / (sum of the token's + 1e-20)`.
pub fn shares(
    experts: usize,
    per_token: usize,
    scaling: f32,
    scores: &[f32],
    chosen: &[i32],
    chosen_scores: &mut [f32],
    shares: &mut [f32],
) {
    let out = chosen_scores.chunks_exact_mut(per_token).zip(shares.chunks_exact_mut(per_token));
    let rows = scores.chunks_exact(experts).zip(chosen.chunks_exact(per_token));
    for ((scores, chosen), (own, shares)) in rows.zip(out) {
        own.iter_mut().zip(chosen).for_each(|(own, &expert)| *own = scores[expert as usize]);
        let factor = scaling / (own.iter().sum::<f32>() + SMALLEST_SUM);
        shares.iter_mut().zip(own).for_each(|(share, own)| *share = *own * factor);
    }
}

/// Writes the gradient of the chosen logits into `dlogits [t, e]`, which is zero elsewhere.
///
/// ```text
/// ds[j] = scaling / sum * (dshare[j] - sum_i dshare[i] s[i] / sum)
/// dlogit[j] = ds[j] s[j] (1 - s[j])
/// ```
pub fn backward(
    experts: usize,
    per_token: usize,
    scaling: f32,
    chosen: &[i32],
    chosen_scores: &[f32],
    dshares: &[f32],
    dlogits: &mut [f32],
) {
    let rows = chosen.chunks_exact(per_token).zip(chosen_scores.chunks_exact(per_token));
    let rows = rows.zip(dshares.chunks_exact(per_token)).zip(dlogits.chunks_exact_mut(experts));
    for (((chosen, own), dshares), dlogits) in rows {
        let sum = own.iter().sum::<f32>() + SMALLEST_SUM;
        let along = own.iter().zip(dshares).map(|(s, d)| s * d).sum::<f32>() / sum;
        for ((&expert, s), dshare) in chosen.iter().zip(own).zip(dshares) {
            let ds = scaling / sum * (dshare - along);
            dlogits[expert as usize] = ds * s * (1.0 - s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_OF_FOUR: Choice = Choice { experts: 4, per_token: 2, groups: 1, groups_per_token: 1 };

    #[track_caller]
    fn check(how: Choice, scores: &[f32], bias: &[f32], expected: &[i32]) {
        let mut chosen = vec![0; how.per_token];
        choose(&how, scores, bias, &mut chosen);
        assert_eq!(chosen, expected);
    }

    #[test]
    fn the_largest_come_first_and_equal_ones_by_number() {
        check(TWO_OF_FOUR, &[0.1, 0.4, 0.9, 0.2], &[0.0; 4], &[2, 1]);
        check(TWO_OF_FOUR, &[0.5, 0.7, 0.5, 0.7], &[0.0; 4], &[1, 3]);
        check(TWO_OF_FOUR, &[0.5; 4], &[0.0; 4], &[0, 1]);
        check(TWO_OF_FOUR, &[0.5, f32::NAN, f32::NAN, f32::NAN], &[0.0; 4], &[1, 2]);
    }

    #[test]
    fn the_best_are_those_of_a_sort() {
        for count in [1, 4, 29, 30] {
            let values: Vec<f32> = (0..30).map(|i| (i * 7 % 11) as f32 - 3.0).collect();
            let mut sorted: Vec<i32> = (0..30).collect();
            sorted.sort_by(|a, b| values[*b as usize].total_cmp(&values[*a as usize]));
            let mut chosen = vec![-1; count];
            best(&values, 0..30, &mut chosen);
            assert_eq!(chosen, sorted[..count]);
        }
    }

    #[test]
    fn the_bias_moves_the_choice_but_not_the_shares() {
        let scores = [0.1, 0.4, 0.9, 0.2];
        check(TWO_OF_FOUR, &scores, &[1.0, 0.0, 0.0, 0.0], &[0, 2]);
        let (mut own, mut share) = ([0.0; 2], [0.0; 2]);
        shares(4, 2, 2.0, &scores, &[0, 2], &mut own, &mut share);
        assert_eq!(own, [0.1, 0.9]);
        assert!((share[0] - 0.2).abs() < 1e-6 && (share[1] - 1.8).abs() < 1e-6);
    }

    #[test]
    fn closed_groups_are_never_chosen_even_when_all_scores_are_negative() {
        let how = Choice { experts: 6, per_token: 2, groups: 3, groups_per_token: 1 };
        // Group 1 has the best pair, group 0 the single best expert.
        check(how, &[0.9, 0.0, 0.5, 0.6, 0.1, 0.1], &[0.0; 6], &[3, 2]);
        check(how, &[0.9, 0.0, 0.5, 0.6, 0.1, 0.1], &[-5.0; 6], &[3, 2]);
    }
}
