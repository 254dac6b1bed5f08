//! The sum of several tensors: residual connections and shared experts.

use kernels::{cuda::Float, reduce};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Fresh, Keeps, Kept, Kind, Operator, Saved, ShapeError, Spec, Tensor,
    on_gpu::rows, shape::mismatch, tensor::in_format,
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

    fn keeps(&self) -> Keeps {
        let inputs = Fresh { per_token: 0, fixed: 1, kind: Kind::Index };
        let input = vec![Kept::Fresh(0)];
        Keeps { fresh: vec![inputs], input, passes_gradient: true, ..Keeps::default() }
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let all: Vec<Tensor> = x.iter().map(|x| x.to(at.dtype)).collect();
        let outputs = vec![in_format!(at.dtype, sum(&all))];
        let inputs = Tensor::from_i32(&[1], vec![x.len() as i32]);
        let saved = Saved { input: vec![inputs], weight: Vec::new() };
        Forward { outputs, saved, observed: None }
    }

    fn backward_input(
        &self,
        _at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        vec![Some(dy[0].clone()); saved[0].i32()[0] as usize]
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

fn sum<N: Float>(all: &[Tensor]) -> Tensor {
    if let Some(gpu) = all[0].gpu() {
        return rows::sums::<N>(gpu, all);
    }
    let mut y = vec![N::ZERO; all[0].len()];
    let values: Vec<&[N]> = all.iter().map(Tensor::numbers).collect();
    reduce::sums(&values, &mut y);
    Tensor::of(all[0].shape(), y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_go_to_every_input() {
        let x = [random(1, &[3, 4]), random(2, &[3, 4]), random(3, &[3, 4])];
        check(&Add { width: 4 }, 3, &x);
    }

    #[test]
    fn one_input_is_no_sum() {
        assert!(Add { width: 4 }.infer(&[Spec::tokens(4)]).is_err());
    }
}
