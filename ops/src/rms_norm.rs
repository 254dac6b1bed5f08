//! RMSNorm: a token divided by its root mean square.
//!
//! Zhang and Sennrich, arXiv:1910.07467, equation 4.

use kernels::rms_norm;
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Fresh, Init, Keeps, Kept, Operator, Rule, Saved, ShapeError, Spec,
    Tensor, WeightSpec, shape::check,
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

    fn keeps(&self) -> Keeps {
        let both = vec![Kept::Input(0), Kept::Fresh(0)];
        let fresh = vec![Fresh::f32_per_token(1)];
        Keeps { fresh, input: both.clone(), weight: both, passes_gradient: false }
    }

    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let tokens = x[0].shape()[0];
        let (mut y, mut rstd) = (vec![0.0; x[0].len()], vec![0.0; tokens]);
        rms_norm::forward(&x[0].f32(), &w[0].f32(), self.eps, &mut y, &mut rstd);
        let both = vec![x[0].clone(), Tensor::from_f32(&[tokens], rstd)];
        let saved = Saved { input: both.clone(), weight: both };
        Forward { outputs: vec![Tensor::rounded(x[0].shape(), y, at.dtype)], saved, observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let (x, rstd) = (&saved[0], &saved[1]);
        let mut dx = vec![0.0; x.len()];
        rms_norm::backward_input(&x.f32(), &w[0].f32(), &rstd.f32(), &dy[0].f32(), &mut dx);
        vec![Some(Tensor::rounded(x.shape(), dx, at.dtype))]
    }

    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
        dw: &mut [Vec<f32>],
    ) {
        let (x, rstd) = (&saved[0], &saved[1]);
        rms_norm::backward_weight(&x.f32(), &rstd.f32(), &dy[0].f32(), &mut dw[0]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_agree_with_differences() {
        check(&RmsNorm { width: 9, eps: 1e-6 }, 4, &[random(1, &[4, 9])]);
    }
}
