//! The output head and the loss in one, so that logits are never held for the whole vocabulary.

use std::ops::Range;

use kernels::{
    cross_entropy::{LogSums, gradient, pick},
    cuda::Float,
    gemm::{MatrixMut, Output, Packed, product},
};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, DType, Floats, Forward, Fresh, Init, Keeps, Kept, Kind, Observed, Operator,
    Rule, Saved, ShapeError, Spec, Tensor, WeightSpec,
    linear::default_init_std,
    on_gpu::loss::{self, Gathered, Loss, forward},
    shape::{check, token_index},
    tensor::in_format,
};

/// Tokens whose logits are held at a time.
const TILE: usize = 64;

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
    pub(crate) fn is_whole(&self) -> bool {
        self.vocab <= self.chunk
    }

    /// Negative log-likelihood of each target in nats; 0 for a target below zero.
    ///
    /// Takes the head `w [v, d]`, `x [t, d]` and `targets [t]`.
    pub fn nll(&self, w: &Tensor, x: &Tensor, targets: &Tensor) -> Vec<f32> {
        let (log_sums, picked) = self.scan(w, x, targets.i32(), |_, _, _| {});
        let nll = |((log_sum, logit), &target)| if target < 0 { 0.0 } else { log_sum - logit };
        log_sums.iter().zip(&picked).zip(targets.i32()).map(nll).collect()
    }

    /// The logits `[t, v]` in f32, for sampling.
    pub fn logits(&self, w: &Tensor, x: &Tensor) -> Tensor {
        let (shape, x) = ([x.shape()[0], self.vocab], x.to(w.dtype()));
        Tensor::product(shape, DType::F32, x.matrix(), w.matrix().transposed())
    }

    /// Columns of the vocabulary, a chunk at a time.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let size = self.chunk.max(1);
        (0..self.vocab).step_by(size).map(move |first| first..self.vocab.min(first + size))
    }

    /// Calls `each` with some columns, some tokens, and their logits `[tokens, columns]`.
    ///
    /// A row of logits has the same bits however many tokens there are.
    fn for_each_tile(
        &self,
        w: &Tensor,
        x: &Tensor,
        mut each: impl FnMut(&Range<usize>, Range<usize>, &[f32]),
    ) {
        let (x, t) = (x.to(w.dtype()), x.shape()[0]);
        let mut logits = vec![0.0; TILE.min(t) * self.chunk.min(self.vocab)];
        for columns in self.chunks() {
            let cols = columns.len();
            let packed = Packed::new(w.rows(columns.clone()).matrix().transposed());
            for first in (0..t).step_by(TILE) {
                let tokens = first..t.min(first + TILE);
                let logits = &mut logits[..tokens.len() * cols];
                let out = MatrixMut::new(logits, tokens.len(), cols);
                product(out, Output::Write, 1.0, x.rows(tokens.clone()).matrix(), &packed);
                each(&columns, tokens, logits);
            }
        }
    }

    /// The log-sum-exp of each token and the logit of its target; `each` sees every tile after
    /// it has been taken into account.
    fn scan(
        &self,
        w: &Tensor,
        x: &Tensor,
        targets: &[i32],
        mut each: impl FnMut(&LogSums, Range<usize>, &[f32]),
    ) -> (Vec<f32>, Vec<f32>) {
        let (mut log_sums, mut picked) = (LogSums::new(targets.len()), vec![0.0; targets.len()]);
        self.for_each_tile(w, x, |columns, tokens, logits| {
            let (cols, picked) = (columns.len(), &mut picked[tokens.clone()]);
            log_sums.extend(tokens.clone(), logits, cols);
            pick(logits, cols, columns.start, &targets[tokens.clone()], picked);
            each(&log_sums, tokens, logits);
        });
        (log_sums.finish(), picked)
    }

    /// What a forward pass on the host makes.
    fn made(&self, at: &Context, w: &Tensor, x: &Tensor, targets: &[i32]) -> Loss {
        let (log_sums, picked, dlogits) = if self.is_whole() {
            let scale = at.loss_scale;
            let all = in_format!(at.dtype, scan_whole(self, scale, w, x, targets));
            (all.0, all.1, Some(all.2))
        } else {
            let (log_sums, picked) = self.scan(w, x, targets, |_, _, _| {});
            (log_sums, picked, None)
        };
        let tensor = |values| Tensor::from_f32(&[targets.len()], values);
        Loss { log_sums: tensor(log_sums), picked: tensor(picked), dlogits }
    }

    /// Calls `each` with the columns, `dlogits` and rows of the head of every chunk.
    fn for_each_chunk(
        &self,
        at: &Context,
        w: &Tensor,
        saved: &[Tensor],
        mut each: impl FnMut(Range<usize>, &Tensor, &Tensor),
    ) {
        if self.is_whole() {
            return each(0..self.vocab, &saved[0], w);
        }
        for columns in self.chunks() {
            let w = w.rows(columns.clone());
            let dlogits = in_format!(at.dtype, chunk_gradient(self, at, &columns, &w, saved));
            each(columns, &dlogits, &w);
        }
    }
}

/// As [`scan`](CrossEntropy::scan) if the vocabulary is one chunk, with `dlogits [t, v]`.
fn scan_whole<N: Float>(
    op: &CrossEntropy,
    scale: f32,
    w: &Tensor,
    x: &Tensor,
    targets: &[i32],
) -> (Vec<f32>, Vec<f32>, Tensor) {
    let cols = op.vocab;
    let mut dlogits = vec![N::ZERO; targets.len() * cols];
    let (log_sums, picked) = op.scan(w, x, targets, |log_sums, tokens, logits| {
        let (sums, targets) = (log_sums.of(tokens.clone()), &targets[tokens.clone()]);
        let dlogits = &mut dlogits[tokens.start * cols..tokens.end * cols];
        gradient(logits, cols, 0, &sums, targets, scale, dlogits);
    });
    (log_sums, picked, Tensor::of(&[targets.len(), cols], dlogits))
}

/// `dlogits` of one chunk, computed anew: `[t, columns]`.
fn chunk_gradient<N: Float>(
    op: &CrossEntropy,
    at: &Context,
    columns: &Range<usize>,
    w: &Tensor,
    saved: &[Tensor],
) -> Tensor {
    if let Some(gpu) = w.gpu() {
        return loss::chunk_gradient::<N>(gpu, op, at.loss_scale, columns, w, saved);
    }
    let (x, targets, log_sums) = (&saved[0], saved[1].i32(), saved[2].f32());
    let (t, cols) = (targets.len(), columns.len());
    let mut dlogits = vec![N::ZERO; t * cols];
    let chunk = CrossEntropy { vocab: cols, chunk: cols, ..op.clone() };
    chunk.for_each_tile(w, x, |_, tokens, logits| {
        let (sums, targets) = (&log_sums[tokens.clone()], &targets[tokens.clone()]);
        let dlogits = &mut dlogits[tokens.start * cols..tokens.end * cols];
        gradient(logits, cols, columns.start, sums, targets, at.loss_scale, dlogits);
    });
    Tensor::of(&[t, cols], dlogits)
}

/// The loss of log-sum-exps, logits of the targets, and targets; those below zero count nothing.
fn observed(all: &[Tensor]) -> Observed {
    let (log_sums, picked) = (all[0].f32(), all[1].f32());
    let each = log_sums.iter().zip(picked.iter()).zip(all[2].i32());
    let losses = each.filter(|(_, target)| **target >= 0);
    let sum = losses.clone().map(|((log_sum, logit), _)| f64::from(log_sum - logit)).sum();
    Observed::Loss { sum, tokens: losses.count() }
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
            (
                Fresh { per_token: self.vocab, fixed: 0, kind: Kind::Activation },
                both[..1].to_vec(),
                both,
            )
        } else {
            let all = vec![Kept::Input(0), Kept::Input(1), Kept::Fresh(0)];
            (Fresh::f32_per_token(1), all.clone(), all)
        };
        Keeps { fresh: vec![fresh], input, weight, passes_gradient: false }
    }

    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let (w, targets, scale) = (&w[0], &x[1], at.loss_scale);
        let (made, observed) = match w.gpu() {
            Some(gpu) => {
                let made = in_format!(at.dtype, forward(gpu, self, scale, w, &x[0], targets));
                let all = vec![made.log_sums.clone(), made.picked.clone(), targets.clone()];
                (made, Observed::later(all, observed))
            }
            None => {
                let made = self.made(at, w, &x[0], targets.i32());
                let all = [made.log_sums.clone(), made.picked.clone(), targets.clone()];
                (made, observed(&all))
            }
        };
        let saved = if let Some(dlogits) = made.dlogits {
            Saved { input: vec![dlogits.clone()], weight: vec![dlogits, x[0].clone()] }
        } else {
            let all = vec![x[0].clone(), x[1].clone(), made.log_sums];
            Saved { input: all.clone(), weight: all }
        };
        Forward { outputs: Vec::new(), saved, observed: Some(observed) }
    }

    /// There is no output, so `dy` is empty: the gradient begins here.
    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        _dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        if self.is_whole() {
            return vec![Some(saved[0].back_through(&w[0], at.dtype)), None];
        }
        let shape = [saved[0].shape()[0], self.width];
        if let Some(gpu) = w[0].gpu() {
            let mut dx = Gathered::new(gpu, shape);
            self.for_each_chunk(at, &w[0], saved, |_, dlogits, w| dx.add(gpu, dlogits, w));
            return vec![Some(dx.finish(gpu, at.dtype)), None];
        }
        let mut dx = vec![0.0; shape[0] * shape[1]];
        self.for_each_chunk(at, &w[0], saved, |_, dlogits, w| {
            let dx = MatrixMut::new(&mut dx, shape[0], shape[1]);
            product(dx, Output::Add, 1.0, dlogits.matrix(), w.matrix());
        });
        vec![Some(Tensor::rounded(&shape, dx, at.dtype)), None]
    }

    /// There is no output, so `dy` is empty.
    fn backward_weight(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        _dy: &[Tensor],
        dw: &mut [Floats],
    ) {
        let x = if self.is_whole() { &saved[1] } else { &saved[0] };
        self.for_each_chunk(at, &w[0], saved, |columns, dlogits, _| {
            let at = columns.start * self.width;
            dw[0].accumulate(at, dlogits, x);
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
