//! Token embedding: one row of the weight for each token.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Init, Operator, Rule, ShapeError, Spec, Tensor, WeightSpec,
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
        let elements = (t * self.width) as f64;
        Cost {
            weight_flops: elements,
            saved_elements: t as f64,
            moved_elements: 2.0 * elements,
            ..Cost::default()
        }
    }
}
