//! QK-Clip: shrinks the projections of a head whose softmax inputs grew too large.
//!
//! Kimi K2, arXiv:2507.20534, section 2.1, algorithm 1, lines 11 to 17. It acts after the update
//! and so bounds the steps to come; the momentum is left as it is.

use std::ops::Range;

use crate::{Floats, MlaAttention};

/// What the softmax inputs of a head are multiplied by, below 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gamma(f32);

/// `tau / max_logit`, if the largest softmax input of the step is above `tau`.
///
/// Figures that are not finite clip nothing: a step with such logits fails elsewhere.
pub fn qk_clip(max_logit: f32, tau: f32) -> Option<Gamma> {
    (max_logit > tau && max_logit.is_finite()).then(|| Gamma(tau / max_logit))
}

impl Gamma {
    /// The factor.
    pub fn factor(self) -> f32 {
        self.0
    }

    /// Scales a head's rows of the query projection `[h(nope+rope), *]`, as far as they are here.
    ///
    /// The part without position shares its factor with the key, `sqrt(gamma)`; the rotary part
    /// takes all of it, because its key belongs to all heads.
    pub fn clip_query(self, attention: &MlaAttention, head: usize, weight: &mut Rows<'_>) {
        let begin = head * (attention.nope + attention.rope);
        let rotary = begin + attention.nope;
        weight.scale(begin..rotary, self.0.sqrt());
        weight.scale(rotary..rotary + attention.rope, self.0);
    }

    /// Scales a head's key rows of the projection `[h(nope+value), *]` by `sqrt(gamma)`, as far
    /// as they are here; value rows stay.
    pub fn clip_key(self, attention: &MlaAttention, head: usize, weight: &mut Rows<'_>) {
        let begin = head * (attention.nope + attention.value);
        weight.scale(begin..begin + attention.nope, self.0.sqrt());
    }
}

/// Rows of a matrix that stand in one place: all of them, or the slice of a holder.
#[derive(Debug)]
pub struct Rows<'a> {
    /// Row of the matrix that comes first.
    pub first: usize,
    /// Elements of a row.
    pub columns: usize,
    /// The rows, one after the other.
    pub values: &'a mut Floats,
}

impl Rows<'_> {
    /// Scales those of the given rows of the matrix that are here.
    fn scale(&mut self, rows: Range<usize>, factor: f32) {
        let here = self.values.len() / self.columns.max(1);
        let place = |row: usize| row.clamp(self.first, self.first + here) - self.first;
        let (from, to) = (place(rows.start), place(rows.end));
        self.values.scale(from * self.columns..to * self.columns, factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, DType, Linear, Observed, Operator, Tensor, grad_check::random};

    const ATTENTION: MlaAttention =
        MlaAttention { heads: 3, nope: 4, rope: 2, value: 5, rope_theta: 100.0, yarn: None };
    const AT: Context = Context { sequence: 6, dtype: DType::F32, loss_scale: 1.0 };

    /// Largest softmax inputs and outputs with the given projections of fixed tokens.
    fn run(query: &[f32], key: &[f32]) -> (Vec<f32>, Tensor) {
        let project = |weight: &[f32], seed: u64, input: usize| {
            let output = weight.len() / input;
            let linear = Linear { input, output, init_std: 0.0 };
            let w = Tensor::from_f32(&[output, input], weight.to_vec());
            linear.forward(&AT, &[w], &[random(seed, &[6, input])]).outputs.remove(0)
        };
        let x = [project(query, 1, 8), project(key, 2, 7), random(3, &[6, 2])];
        let mut forward = ATTENTION.forward(&AT, &[], &x);
        let Some(Observed::MaxLogits(largest)) = forward.observed else { panic!("no logits") };
        (largest, forward.outputs.remove(0))
    }

    fn whole(values: &mut Floats, columns: usize) -> Rows<'_> {
        Rows { first: 0, columns, values }
    }

    #[test]
    fn every_logit_of_a_clipped_head_shrinks_by_gamma_and_nothing_else_changes() {
        let old_query = random(4, &[3 * 6, 8]).f32().into_owned();
        let old_key = random(5, &[3 * 9, 7]).f32().into_owned();
        let (before, y) = run(&old_query, &old_key);
        let [mut query, mut key] = [&old_query, &old_key].map(|old| Floats::from(old.clone()));
        let gamma = qk_clip(before[1], before[1] / 3.0).unwrap();
        gamma.clip_query(&ATTENTION, 1, &mut whole(&mut query, 8));
        gamma.clip_key(&ATTENTION, 1, &mut whole(&mut key, 7));

        let (query, key) = (query.host(), key.host());
        let (after, clipped) = run(query, key);
        assert!((after[1] / before[1] - gamma.factor()).abs() < 1e-6);
        assert_eq!((after[0], after[2]), (before[0], before[2]));
        for (y, clipped) in y.f32().chunks(5).zip(clipped.f32().chunks(5)).step_by(3) {
            assert_eq!(y, clipped, "the first head");
        }
        let untouched = |head: usize, width: usize, from: usize, cols: usize| {
            (head * width + from) * cols..(head + 1) * width * cols
        };
        assert_eq!(key[untouched(1, 9, 4, 7)], old_key[untouched(1, 9, 4, 7)], "values");
        assert_eq!(query[untouched(2, 6, 0, 8)], old_query[untouched(2, 6, 0, 8)]);
    }

    #[test]
    fn slices_of_rows_are_clipped_like_the_whole_wherever_they_are_cut() {
        let gamma = qk_clip(9.0, 3.0).unwrap();
        let clip: [fn(Gamma, usize, &mut Rows<'_>); 2] = [
            |gamma, head, rows| gamma.clip_query(&ATTENTION, head, rows),
            |gamma, head, rows| gamma.clip_key(&ATTENTION, head, rows),
        ];
        for (clip, rows) in clip.into_iter().zip([3 * 6, 3 * 9]) {
            let before = random(6, &[rows, 2]).f32().into_owned();
            let before = Floats::from(before);
            let mut all = before.clone();
            clip(gamma, 2, &mut whole(&mut all, 2));
            assert_ne!(all, before);
            for cut in 0..=rows {
                let (mut top, mut bottom) =
                    (before.part(0..2 * cut), before.part(2 * cut..2 * rows));
                clip(gamma, 2, &mut whole(&mut top, 2));
                clip(gamma, 2, &mut Rows { first: cut, columns: 2, values: &mut bottom });
                assert_eq!(Floats::joined([top, bottom]), all, "cut before row {cut}");
            }
        }
    }

    #[test]
    fn small_negative_and_unreal_logits_clip_nothing() {
        for logit in [99.0, 100.0, 0.0, -500.0, f32::NAN, f32::INFINITY] {
            assert_eq!(qk_clip(logit, 100.0), None, "{logit}");
        }
        assert_eq!(qk_clip(400.0, 100.0).map(Gamma::factor), Some(0.25));
    }
}
