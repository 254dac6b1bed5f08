//! RMSNorm: a token divided by its root mean square.
//!
//! Zhang and Sennrich, arXiv:1910.07467, equation 4.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Init, Operator, Rule, ShapeError, Spec, Tensor, WeightSpec,
    shape::check,
};

/// Divides each token by its root mean square, then scales each column.
///
/// ```text
/// y[t, d] = x[t, d] * w[d] / sqrt(mean_d(x[t, d]^2) + eps)
/// ```
///
/// Saves `x_td` and one f32 per token (the divisor's inverse) for both backward halves.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RmsNorm {
    /// Width of one token, the length of the gain vector.
    pub width: usize,
    /// Added to the mean square, which keeps an all-zero token finite.
    pub eps: f32,
}

impl Operator for RmsNorm {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let spec = Spec::tokens(self.width);
        check("RmsNorm", inputs, std::slice::from_ref(&spec), format!("[t, d={}]", self.width))?;
        Ok(vec![spec])
    }

    fn weights(&self) -> Vec<WeightSpec> {
        vec![WeightSpec {
            name: "weight",
            expert: None,
            shape: vec![self.width],
            init: Init::Ones,
            rule: Rule::AdamW,
            exact: true,
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
            forward_flops: 4.0 * elements,
            input_flops: 6.0 * elements,
            weight_flops: 3.0 * elements,
            saved_elements: elements + t as f64,
            moved_elements: 2.0 * elements,
        }
    }
}
