//! Cuts the columns of a token into several outputs.

use serde::{Deserialize, Serialize};

use crate::{Context, Cost, Forward, Operator, ShapeError, Spec, Tensor, WeightSpec, shape::check};

/// Cuts `[t, w0 + w1 + ..]` into `[t, w0]`, `[t, w1]`, ..; saves nothing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Widths of the outputs, left to right.
    pub widths: Vec<usize>,
}

impl Split {
    fn width(&self) -> usize {
        self.widths.iter().sum()
    }
}

impl Operator for Split {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let width = self.width();
        let letters = format!("[t, {width}], the sum of the widths {:?}", self.widths);
        check("Split", inputs, &[Spec::tokens(width)], letters)?;
        Ok(self.widths.iter().map(|&width| Spec::tokens(width)).collect())
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
        Cost { moved_elements: 2.0 * (t * self.width()) as f64, ..Cost::default() }
    }
}
