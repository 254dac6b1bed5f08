//! RMSNorm: a token divided by its root mean square.
//!
//! Zhang and Sennrich, arXiv:1910.07467, equation 4.

use kernels::{cuda::Float, rms_norm};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Floats, Forward, Fresh, Init, Keeps, Kept, Operator, Rule, Saved, ShapeError,
    Spec, Tensor, WeightSpec, on_gpu::rows, shape::check, tensor::in_format,
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
        let (y, rstd) = in_format!(at.dtype, forward(&x[0].to(at.dtype), &w[0], self.eps));
        let both = vec![x[0].clone(), rstd];
        let saved = Saved { input: both.clone(), weight: both };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let (x, rstd, dy) = (saved[0].to(at.dtype), &saved[1], dy[0].to(at.dtype));
        vec![Some(in_format!(at.dtype, backward_input(&x, &w[0], rstd, &dy)))]
    }

    fn backward_weight(
        &self,
        at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
        dw: &mut [Floats],
    ) {
        let (x, rstd, dy) = (saved[0].to(at.dtype), &saved[1], dy[0].to(at.dtype));
        dw[0].fill_up(self.width);
        in_format!(at.dtype, backward_weight(&x, rstd, &dy, &mut dw[0]));
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

/// The output and the inverse divisor of each token.
fn forward<N: Float>(x: &Tensor, w: &Tensor, eps: f32) -> (Tensor, Tensor) {
    if let Some(gpu) = x.gpu() {
        return rows::norm::<N>(gpu, x, w, eps);
    }
    let tokens = x.shape()[0];
    let (mut y, mut rstd) = (vec![N::ZERO; x.len()], vec![0.0; tokens]);
    rms_norm::forward::<N>(x.numbers(), &w.f32(), eps, &mut y, &mut rstd);
    (Tensor::of(x.shape(), y), Tensor::from_f32(&[tokens], rstd))
}

fn backward_input<N: Float>(x: &Tensor, w: &Tensor, rstd: &Tensor, dy: &Tensor) -> Tensor {
    if let Some(gpu) = x.gpu() {
        return rows::norm_input::<N>(gpu, x, w, rstd, dy);
    }
    let mut dx = vec![N::ZERO; x.len()];
    rms_norm::backward_input::<N>(x.numbers(), &w.f32(), &rstd.f32(), dy.numbers(), &mut dx);
    Tensor::of(x.shape(), dx)
}

fn backward_weight<N: Float>(x: &Tensor, rstd: &Tensor, dy: &Tensor, dw: &mut Floats) {
    match dw {
        Floats::Host(dw) => {
            rms_norm::backward_weight::<N>(x.numbers(), &rstd.f32(), dy.numbers(), dw);
        }
        Floats::Gpu(dw) => {
            let gpu = dw.gpu().clone();
            rows::norm_weight::<N>(&gpu, x, rstd, dy, dw.view_mut());
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
