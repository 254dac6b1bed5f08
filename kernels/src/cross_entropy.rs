//! Softmax over the vocabulary, a chunk of columns at a time.
//!
//! A target below zero marks a token that has no loss and no gradient.

use std::ops::Range;

use crate::{
    exp::exp,
    number::Number,
    reduce::{max_of, sum_of},
    vector::vectorised,
};

/// The log-sum-exp of the logits of each token over the chunks seen so far.
#[derive(Clone, Debug)]
pub struct LogSums {
    largest: Vec<f32>,
    sums: Vec<f32>,
}

impl LogSums {
    /// For `tokens` tokens, before the first chunk.
    pub fn new(tokens: usize) -> Self {
        LogSums { largest: vec![f32::NEG_INFINITY; tokens], sums: vec![0.0; tokens] }
    }

    /// Takes `cols` more columns of some tokens: `logits [tokens, cols]`.
    pub fn extend(&mut self, tokens: Range<usize>, logits: &[f32], cols: usize) {
        extend(logits, cols, &mut self.largest[tokens.clone()], &mut self.sums[tokens]);
    }

    /// The natural logarithms of some tokens.
    pub fn of(&self, tokens: Range<usize>) -> Vec<f32> {
        let sums = self.largest[tokens.clone()].iter().zip(&self.sums[tokens]);
        sums.map(|(largest, sum)| largest + sum.ln()).collect()
    }

    /// The natural logarithms.
    pub fn finish(self) -> Vec<f32> {
        self.of(0..self.sums.len())
    }
}

vectorised! {
    fn extend(logits: &[f32], cols: usize, largest: &mut [f32], sums: &mut [f32]) {
        for ((row, largest), sum) in logits.chunks_exact(cols).zip(largest).zip(sums) {
            let now = largest.max(max_of(row));
            *sum = *sum * exp(*largest - now) + sum_of(row, row, |x, _| exp(x - now));
            *largest = now;
        }
    }

    fn probabilities<N: Number>(row: &[f32], log_sum: f32, scale: f32, gradient: &mut [N]) {
        for (gradient, x) in gradient.iter_mut().zip(row) {
            *gradient = N::nearest(exp(*x - log_sum) * scale);
        }
    }
}

/// Writes the logit of each target among columns `first..first + cols`.
pub fn pick(logits: &[f32], cols: usize, first: usize, targets: &[i32], picked: &mut [f32]) {
    for ((row, &target), picked) in logits.chunks_exact(cols).zip(targets).zip(picked) {
        if let Some(logit) = column(target, first).and_then(|column| row.get(column)) {
            *picked = *logit;
        }
    }
}

/// Writes the gradients of logits, `(softmax - [v = target]) * scale`.
pub fn gradient<N: Number>(
    logits: &[f32],
    cols: usize,
    first: usize,
    log_sums: &[f32],
    targets: &[i32],
    scale: f32,
    dlogits: &mut [N],
) {
    let rows = logits.chunks_exact(cols).zip(dlogits.chunks_exact_mut(cols));
    for (((row, gradient), &target), &log_sum) in rows.zip(targets).zip(log_sums) {
        if target < 0 {
            gradient.fill(N::ZERO);
            continue;
        }
        probabilities(row, log_sum, scale, gradient);
        if let Some(column) = column(target, first).filter(|column| *column < cols) {
            gradient[column] = N::nearest(exp(row[column] - log_sum) * scale - scale);
        }
    }
}

/// Column of a target in a chunk that begins at `first`, if it is not before it.
fn column(target: i32, first: usize) -> Option<usize> {
    usize::try_from(target).ok()?.checked_sub(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal;

    #[test]
    fn chunks_give_the_log_sum_of_the_whole() {
        let logits: Vec<f32> = (0..40).map(|i| normal(1, i) * 20.0).collect();
        let mut whole = LogSums::new(1);
        whole.extend(0..1, &logits, 40);
        let mut parts = LogSums::new(1);
        logits.chunks(7).for_each(|part| parts.extend(0..1, part, part.len()));
        let truth = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        for log_sum in [whole.finish()[0], parts.finish()[0]] {
            assert!((f64::from(log_sum) - truth).abs() < 1e-5, "{log_sum} {truth}");
        }
    }

    #[test]
    fn the_gradient_sums_to_zero_and_marked_tokens_have_none() {
        let logits: Vec<f32> = (0..20).map(|i| normal(2, i)).collect();
        let mut log_sums = LogSums::new(2);
        log_sums.extend(0..2, &logits, 10);
        let mut picked = [0.0; 2];
        pick(&logits, 10, 0, &[3, -1], &mut picked);
        assert_eq!(picked, [logits[3], 0.0]);
        let mut dlogits = [7.0; 20];
        gradient(&logits, 10, 0, &log_sums.finish(), &[3, -1], 0.5, &mut dlogits);
        assert!(dlogits[..10].iter().sum::<f32>().abs() < 1e-6);
        assert!(dlogits[3] < 0.0 && dlogits[4] > 0.0);
        assert_eq!(dlogits[10..], [0.0; 10]);
    }
}
