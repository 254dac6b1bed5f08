//! Cuts the columns of a token into several outputs.

use kernels::cuda::Float;
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor, on_gpu::rows,
    shape::check, tensor::in_format,
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

fn cut<N: Float>(widths: &[usize], x: &Tensor) -> Vec<Tensor> {
    if let Some(gpu) = x.gpu() {
        return rows::cut::<N>(gpu, widths, x);
    }
    let (values, t) = (x.numbers::<N>(), x.shape()[0]);
    let mut from = 0;
    let part = |&width: &usize| {
        let mut part = Vec::with_capacity(t * width);
        for row in values.chunks_exact(x.shape()[1].max(1)) {
            part.extend_from_slice(&row[from..from + width]);
        }
        from += width;
        Tensor::of(&[t, width], part)
    };
    widths.iter().map(part).collect()
}

fn joined<N: Float>(parts: &[Tensor], width: usize) -> Tensor {
    if let Some(gpu) = parts[0].gpu() {
        return rows::joined::<N>(gpu, parts, width);
    }
    let t = parts[0].shape()[0];
    let mut whole = vec![N::ZERO; t * width];
    let mut from = 0;
    for part in parts {
        let own = part.shape()[1];
        let rows = part.numbers::<N>().chunks_exact(own.max(1));
        for (whole, row) in whole.chunks_exact_mut(width.max(1)).zip(rows) {
            whole[from..from + own].copy_from_slice(row);
        }
        from += own;
    }
    Tensor::of(&[t, width], whole)
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
        let outputs = in_format!(at.dtype, cut(&self.widths, &x[0].to(at.dtype)));
        Forward { outputs, saved: Saved::default(), observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        _saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let dy: Vec<Tensor> = dy.iter().map(|dy| dy.to(at.dtype)).collect();
        vec![Some(in_format!(at.dtype, joined(&dy, self.width())))]
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
