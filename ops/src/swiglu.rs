//! SwiGLU: a gate that lets a value through.
//!
//! Shazeer, arXiv:2002.05202, section 2.

use kernels::{cuda::Float, swiglu};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor, on_gpu::rows,
    shape::mismatch, tensor::in_format,
};

/// Multiplies `up` by the SiLU of `gate`.
///
/// ```text
/// y[t, f] = silu(gate[t, f]) * up[t, f],   silu(x) = x / (1 + exp(-x))
/// ```
///
/// Inputs are two tensors of tokens or two of rows. Saves both for `I`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SwiGlu {
    /// Width of both inputs and of the output, `f`.
    pub width: usize,
}

impl Operator for SwiGlu {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        for spec in [Spec::tokens(self.width), Spec::rows(self.width)] {
            if inputs == [spec.clone(), spec.clone()] {
                return Ok(vec![spec]);
            }
        }
        let f = self.width;
        Err(mismatch("SwiGlu", inputs, format!("gate and up, both [t, f={f}] or both [r, f={f}]")))
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1], &[])
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let y = in_format!(at.dtype, forward(&x[0].to(at.dtype), &x[1].to(at.dtype)));
        let saved = Saved { input: x.to_vec(), weight: Vec::new() };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let [gate, up, dy] = [&saved[0], &saved[1], &dy[0]].map(|x| x.to(at.dtype));
        in_format!(at.dtype, backward(&gate, &up, &dy)).map(Some).into()
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let elements = (t * self.width) as f64;
        Cost {
            forward_flops: 5.0 * elements,
            input_flops: 9.0 * elements,
            weight_flops: 0.0,
            saved_elements: 2.0 * elements,
            moved_elements: 3.0 * elements,
        }
    }
}

fn forward<N: Float>(gate: &Tensor, up: &Tensor) -> Tensor {
    if let Some(gpu) = gate.gpu() {
        return rows::swiglu::<N>(gpu, gate, up);
    }
    Tensor::of(gate.shape(), swiglu::forward::<N>(gate.numbers(), up.numbers()))
}

fn backward<N: Float>(gate: &Tensor, up: &Tensor, dy: &Tensor) -> [Tensor; 2] {
    if let Some(gpu) = gate.gpu() {
        return rows::swiglu_input::<N>(gpu, gate, up, dy);
    }
    let (dgate, dup) = swiglu::backward::<N>(gate.numbers(), up.numbers(), dy.numbers());
    [dgate, dup].map(|dx| Tensor::of(gate.shape(), dx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_agree_with_differences() {
        check(&SwiGlu { width: 5 }, 3, &[random(1, &[3, 5]), random(2, &[3, 5])]);
    }

    #[test]
    fn tokens_and_rows_are_taken_but_not_mixed() {
        let op = SwiGlu { width: 5 };
        assert!(op.infer(&[Spec::tokens(5), Spec::tokens(5)]).is_ok());
        assert_eq!(op.infer(&[Spec::rows(5), Spec::rows(5)]), Ok(vec![Spec::rows(5)]));
        assert!(op.infer(&[Spec::tokens(5), Spec::rows(5)]).is_err());
    }
}
