//! Cuts the columns of a token into several outputs.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor, shape::check,
};

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

    fn keeps(&self) -> Keeps {
        Keeps::default()
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let (values, t) = (x[0].f32(), x[0].shape()[0]);
        let mut from = 0;
        let outputs = self.widths.iter().map(|&width| {
            let mut part = Vec::with_capacity(t * width);
            for row in values.chunks_exact(self.width().max(1)) {
                part.extend_from_slice(&row[from..from + width]);
            }
            from += width;
            Tensor::rounded(&[t, width], part, at.dtype)
        });
        Forward { outputs: outputs.collect(), saved: Saved::default(), observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        _saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let (t, width) = (dy[0].shape()[0], self.width());
        let mut dx = vec![0.0; t * width];
        let mut from = 0;
        for (dy, &part) in dy.iter().zip(&self.widths) {
            for (dx, dy) in dx.chunks_exact_mut(width).zip(dy.f32().chunks_exact(part)) {
                dx[from..from + part].copy_from_slice(dy);
            }
            from += part;
        }
        vec![Some(Tensor::rounded(&[t, width], dx, at.dtype))]
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        Cost { moved_elements: 2.0 * (t * self.width()) as f64, ..Cost::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn columns_are_cut_left_to_right_and_gradients_put_back() {
        let split = Split { widths: vec![2, 1, 3] };
        let at = crate::Context { sequence: 1, dtype: crate::DType::F32, loss_scale: 1.0 };
        let x = random(1, &[2, 6]);
        let parts = split.forward(&at, &[], std::slice::from_ref(&x)).outputs;
        assert_eq!(parts[1].f32().as_ref(), [x.f32()[2], x.f32()[8]]);
        check(&split, 1, &[x]);
    }
}
