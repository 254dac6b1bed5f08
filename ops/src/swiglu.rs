//! SwiGLU: a gate that lets a value through.
//!
//! Shazeer, arXiv:2002.05202, section 2.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Operator, ShapeError, Spec, Tensor, WeightSpec, shape::mismatch,
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

    fn weights(&self) -> Vec<WeightSpec> {
        Vec::new()
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
            forward_flops: 5.0 * elements,
            input_flops: 9.0 * elements,
            weight_flops: 0.0,
            saved_elements: 2.0 * elements,
            moved_elements: 3.0 * elements,
        }
    }
}
