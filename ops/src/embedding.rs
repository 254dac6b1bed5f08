//! Token embedding: one row of the weight for each token.

use kernels::{embedding, gemm::Values};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Init, Keeps, Operator, Rule, Saved, ShapeError, Spec, Tensor,
    WeightSpec,
    linear::default_init_std,
    shape::{check, token_index},
};

/// Looks up one row of the weight for each token.
///
/// ```text
/// y[t, d] = w[token[t], d]
/// ```
///
/// Saves the tokens for `W`; tokens have no gradient.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Number of different tokens, `v`.
    pub vocab: usize,
    /// Width of one token, `d`.
    pub width: usize,
    /// Standard deviation of the weight before the first step.
    #[serde(default = "default_init_std")]
    pub init_std: f32,
}

impl Operator for Embedding {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        check("Embedding", inputs, &[token_index(None)], "tokens [t] i32".into())?;
        Ok(vec![Spec::tokens(self.width)])
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
        Keeps::inputs(&[], &[0])
    }

    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let tokens = x[0].i32();
        let shape = [tokens.len(), self.width];
        let row = self.width * w[0].dtype().size();
        let mut bytes = vec![0; tokens.len() * row];
        embedding::gather(w[0].bytes(), row, tokens, &mut bytes);
        let y = Tensor::from_bytes(&shape, w[0].dtype(), bytes.into()).to(at.dtype);
        let saved = Saved { input: Vec::new(), weight: vec![x[0].clone()] };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        _at: &Context,
        _w: &[Tensor],
        _saved: &[Tensor],
        _dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        vec![None]
    }

    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
        dw: &mut [Vec<f32>],
    ) {
        let (tokens, dw) = (saved[0].i32(), &mut dw[0]);
        dw.resize(self.vocab * self.width, 0.0);
        match dy[0].values() {
            Values::F32(dy) => embedding::scatter_add(dw, self.width, tokens, dy),
            Values::Bf16(dy) => embedding::scatter_add(dw, self.width, tokens, dy),
        }
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let elements = (t * self.width) as f64;
        Cost {
            weight_flops: elements,
            saved_elements: t as f64,
            moved_elements: 2.0 * elements,
            ..Cost::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::check;

    #[test]
    fn gradients_go_to_the_rows_that_were_read() {
        let tokens = Tensor::from_i32(&[6], vec![3, 0, 3, 1, 3, 0]);
        check(&Embedding { vocab: 5, width: 3, init_std: 1.0 }, 3, &[tokens]);
    }
}
