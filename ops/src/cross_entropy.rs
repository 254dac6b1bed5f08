//! The output head and the loss in one, so that logits are never held for the whole vocabulary.

use std::ops::Range;

use kernels::{
    cross_entropy::{LogSums, gradient, pick},
    gemm::{Matrix, MatrixMut, Output, multiply, product},
};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Fresh, Init, Keeps, Kept, Observed, Operator, Rule, Saved, ShapeError,
    Spec, Tensor, WeightSpec,
    linear::default_init_std,
    shape::{check, token_index},
};

/// Negative log-likelihood of the targets under the head's softmax.
///
/// ```text
/// logits[t, v] = sum_d x[t, d] * w[v, d]
/// loss = sum_t (ln sum_v exp(logits[t, v]) - logits[t, target[t]])
/// dlogits[t, v] = (softmax_v(logits[t, :]) - [v = target[t]]) * loss_scale
/// ```
///
/// Inputs are `x [t, d]` and `targets [t]`; there is no output. Observes the unscaled loss.
/// The vocabulary is worked through `chunk` rows at a time. If it fits into one chunk, `dlogits`
/// is saved for both halves; if not, one log-sum-exp per token, and both halves recompute.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CrossEntropy {
    /// Width of a token, `d`.
    pub width: usize,
    /// Number of different tokens, `v`.
    pub vocab: usize,
    /// Columns of the vocabulary held at a time.
    #[serde(default = "default_chunk")]
    pub chunk: usize,
    /// Standard deviation of the weight before the first step.
    #[serde(default = "default_init_std")]
    pub init_std: f32,
}

fn default_chunk() -> usize {
    4096
}

impl CrossEntropy {
    fn is_whole(&self) -> bool {
        self.vocab <= self.chunk
    }

    /// Negative log-likelihood of each target in nats; 0 for a target below zero.
    ///
    /// Takes the head `w [v, d]`, `x [t, d]` and `targets [t]`.
    pub fn nll(&self, w: &Tensor, x: &Tensor, targets: &Tensor) -> Vec<f32> {
        let Scan { log_sums, picked, .. } = self.scan(w, &x.f32(), targets.i32());
        let nll = |((log_sum, logit), &target)| if target < 0 { 0.0 } else { log_sum - logit };
        log_sums.iter().zip(&picked).zip(targets.i32()).map(nll).collect()
    }

    /// The logits `[t, v]` in f32, for sampling.
    pub fn logits(&self, w: &Tensor, x: &Tensor) -> Tensor {
        let (w_vd, x_td, t) = (w.f32(), x.f32(), x.shape()[0]);
        let w_dv = Matrix::new(&w_vd, self.vocab, self.width).transposed();
        let logits = multiply(Matrix::new(&x_td, t, self.width), w_dv);
        Tensor::from_f32(&[t, self.vocab], logits)
    }

    /// Columns of the vocabulary, a chunk at a time.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let size = self.chunk.max(1);
        (0..self.vocab).step_by(size).map(move |first| first..self.vocab.min(first + size))
    }

    fn chunk_logits(&self, w: &[f32], x: &[f32], columns: &Range<usize>) -> Vec<f32> {
        let w_dv = Matrix::new(w, columns.len(), self.width).transposed();
        multiply(Matrix::new(x, x.len() / self.width, self.width), w_dv)
    }

    fn scan(&self, w: &Tensor, x: &[f32], targets: &[i32]) -> Scan {
        let mut log_sums = LogSums::new(targets.len());
        let (mut picked, mut last) = (vec![0.0; targets.len()], Vec::new());
        for columns in self.chunks() {
            last = self.chunk_logits(&w.rows(columns.clone()).f32(), x, &columns);
            log_sums.extend(&last, columns.len());
            pick(&last, columns.len(), columns.start, targets, &mut picked);
        }
        Scan { log_sums: log_sums.finish(), picked, last }
    }

    /// Calls `each` with the columns, `dlogits` and rows of the head of every chunk.
    fn for_each_chunk(
        &self,
        at: &Context,
        w: &Tensor,
        saved: &[Tensor],
        mut each: impl FnMut(Range<usize>, &[f32], &[f32]),
    ) {
        if self.is_whole() {
            return each(0..self.vocab, &saved[0].f32(), &w.f32());
        }
        let (x, targets, log_sums) = (saved[0].f32(), saved[1].i32(), saved[2].f32());
        for columns in self.chunks() {
            let w = w.rows(columns.clone());
            let w = w.f32();
            let mut logits = self.chunk_logits(&w, &x, &columns);
            let cols = columns.len();
            gradient(&mut logits, cols, columns.start, &log_sums, targets, at.loss_scale);
            each(columns, &logits, &w);
        }
    }
}

/// What one look at all logits leaves.
struct Scan {
    log_sums: Vec<f32>,
    /// Logit of each target.
    picked: Vec<f32>,
    /// Logits of the last chunk, `[t, columns]`.
    last: Vec<f32>,
}

impl Operator for CrossEntropy {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let letters = format!("x [t, d={}] and targets [t] i32", self.width);
        check("CrossEntropy", inputs, &[Spec::tokens(self.width), token_index(None)], letters)?;
        Ok(Vec::new())
    }

    fn weights(&self) -> Vec<WeightSpec> {
        vec![WeightSpec {
            name: "weight",
            expert: None,
            shape: vec![self.vocab, self.width],
            init: Init::Normal(self.init_std),
            rule: Rule::AdamW,
            exact: false,
        }]
    }

    fn keeps(&self) -> Keeps {
        let (fresh, input, weight) = if self.is_whole() {
            let both = vec![Kept::Fresh(0), Kept::Input(0)];
            (Fresh::f32_per_token(self.vocab), both[..1].to_vec(), both)
        } else {
            let all = vec![Kept::Input(0), Kept::Input(1), Kept::Fresh(0)];
            (Fresh::f32_per_token(1), all.clone(), all)
        };
        Keeps { fresh: vec![fresh], input, weight, passes_gradient: false }
    }

    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let (x_td, targets) = (x[0].f32(), x[1].i32());
        let Scan { log_sums, picked, mut last } = self.scan(&w[0], &x_td, targets);
        let losses = log_sums.iter().zip(&picked).zip(targets).filter(|(_, target)| **target >= 0);
        let sum = losses.clone().map(|((log_sum, logit), _)| f64::from(log_sum - logit)).sum();
        let observed = Some(Observed::Loss { sum, tokens: losses.count() });

        let t = targets.len();
        let saved = if self.is_whole() {
            gradient(&mut last, self.vocab, 0, &log_sums, targets, at.loss_scale);
            let dlogits = Tensor::from_f32(&[t, self.vocab], last);
            Saved { input: vec![dlogits.clone()], weight: vec![dlogits, x[0].clone()] }
        } else {
            let all = vec![x[0].clone(), x[1].clone(), Tensor::from_f32(&[t], log_sums)];
            Saved { input: all.clone(), weight: all }
        };
        Forward { outputs: Vec::new(), saved, observed }
    }

    /// There is no output, so `dy` is empty: the gradient begins here.
    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        _dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let t = saved[0].shape()[0];
        let mut dx = vec![0.0; t * self.width];
        self.for_each_chunk(at, &w[0], saved, |columns, dlogits, w| {
            let dx = MatrixMut::new(&mut dx, t, self.width);
            let dlogits = Matrix::new(dlogits, t, columns.len());
            product(dx, Output::Add, 1.0, dlogits, Matrix::new(w, columns.len(), self.width));
        });
        vec![Some(Tensor::rounded(&[t, self.width], dx, at.dtype)), None]
    }

    /// There is no output, so `dy` is empty.
    fn backward_weight(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        _dy: &[Tensor],
        dw: &mut [Vec<f32>],
    ) {
        let (t, x) = (saved[0].shape()[0], if self.is_whole() { &saved[1] } else { &saved[0] });
        let x_td = x.f32();
        self.for_each_chunk(at, &w[0], saved, |columns, dlogits, _| {
            let dw = &mut dw[0][columns.start * self.width..];
            let dw = MatrixMut::new(dw, columns.len(), self.width);
            let dlogits = Matrix::new(dlogits, t, columns.len()).transposed();
            product(dw, Output::Add, 1.0, dlogits, Matrix::new(&x_td, t, self.width));
        });
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let flops = 2.0 * (t * self.width * self.vocab) as f64;
        let (products, kept) = if self.is_whole() { (1.0, self.vocab) } else { (2.0, 2) };
        Cost {
            forward_flops: flops,
            input_flops: products * flops,
            weight_flops: products * flops,
            saved_elements: (t * (self.width + kept)) as f64,
            moved_elements: (t * self.width) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    const WHOLE: CrossEntropy = CrossEntropy { width: 4, vocab: 11, chunk: 16, init_std: 1.0 };
    const CHUNKED: CrossEntropy = CrossEntropy { chunk: 4, ..WHOLE };

    fn inputs() -> [Tensor; 2] {
        [random(1, &[5, 4]), Tensor::from_i32(&[5], vec![3, 10, 0, -1, 4])]
    }

    #[test]
    fn gradients_agree_with_differences_whole_and_in_chunks() {
        check(&WHOLE, 5, &inputs());
        check(&CHUNKED, 5, &inputs());
    }

    #[test]
    fn chunks_change_the_result_by_rounding_only() {
        let w = crate::grad_check::random_weights(&WHOLE);
        let [x, targets] = inputs();
        let (whole, chunked) = (WHOLE.nll(&w[0], &x, &targets), CHUNKED.nll(&w[0], &x, &targets));
        assert!(whole.iter().zip(&chunked).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(whole[3], 0.0, "a target below zero has no loss");
    }

    #[test]
    fn the_likelihood_is_that_of_the_logits() {
        let w = crate::grad_check::random_weights(&WHOLE);
        let [x, targets] = inputs();
        let (nll, logits) = (CHUNKED.nll(&w[0], &x, &targets), CHUNKED.logits(&w[0], &x));
        for ((nll, row), target) in nll.iter().zip(logits.f32().chunks(11)).zip(targets.i32()) {
            let sum: f32 = row.iter().map(|x| x.exp()).sum();
            let Ok(target) = usize::try_from(*target) else { continue };
            assert!((nll - (sum.ln() - row[target])).abs() < 1e-5);
        }
        let at = Context { sequence: 5, dtype: crate::DType::F32, loss_scale: 0.25 };
        let observed = CHUNKED.forward(&at, &w, &[x, targets]).observed;
        let Some(Observed::Loss { sum, tokens }) = observed else { panic!("no loss") };
        assert_eq!(tokens, 4);
        assert!((sum - nll.iter().map(|x| f64::from(*x)).sum::<f64>()).abs() < 1e-5);
    }
}
