//! The sum of several tensors: residual connections and shared experts.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Operator, ShapeError, Spec, Tensor, WeightSpec, shape::mismatch,
};

/// Adds two or more `[t, d]` in the order of the inputs.
///
/// ```text
/// y[t, d] = (a[t, d] + b[t, d]) + c[t, d] + ..
/// ```
///
/// Saves one whole number, how many inputs there were.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// Width of a token, `d`.
    pub width: usize,
}

impl Operator for Add {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let spec = Spec::tokens(self.width);
        if inputs.len() < 2 || inputs.iter().any(|input| *input != spec) {
            return Err(mismatch("Add", inputs, format!("two or more [t, d={}]", self.width)));
        }
        Ok(vec![spec])
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
            forward_flops: elements,
            saved_elements: 1.0,
            moved_elements: 3.0 * elements,
            ..Cost::default()
        }
    }
}
