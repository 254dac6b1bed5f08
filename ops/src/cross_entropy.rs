//! The output head and the loss in one, so that logits are never held for the whole vocabulary.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Init, Operator, Rule, ShapeError, Spec, Tensor, WeightSpec,
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

    fn forward(&self, _at: &Context, _w: &[Tensor], _x: &[Tensor]) -> Forward {
        unreachable!()
    }

    fn backward_input(
        &self,
        _at: &Context,
        _w: &[Tensor],
        _saved: &[Tensor],
        _dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        unreachable!()
    }

    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        _saved: &[Tensor],
        _dy: &[Tensor],
        _dw: &mut [Vec<f32>],
    ) {
        unreachable!()
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
