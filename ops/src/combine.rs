//! Brings the experts' rows back to their tokens and adds them.

use kernels::cuda::Float;
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor,
    rows::Rows,
    shape::{check, token_index},
    tensor::in_format,
};

/// Adds the rows of each token, which [`Weigh`](crate::Weigh) has scaled, in the router's order.
///
/// ```text
/// y[t, d] = sum_k rows[row of (choice[t, k], t), d]
/// ```
///
/// Inputs are `rows [r, d]` in the order of [`Dispatch`](crate::Dispatch) and `choice [t, k]`.
/// Saves the choice for `I`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Combine {
    /// Width of a token, `d`.
    pub width: usize,
    /// Number of experts, `e`.
    pub experts: usize,
    /// Experts that see each token, `k`.
    pub experts_per_token: usize,
}

fn gathered<N: Float>(op: &Combine, rows: &Tensor, choice: &Tensor) -> Tensor {
    Rows::new(choice, op.experts).gathered::<N>(rows, op.experts_per_token)
}

/// The gradient of each row: that of its token.
fn spread<N: Float>(op: &Combine, choice: &Tensor, dy: &Tensor) -> Tensor {
    Rows::new(choice, op.experts).scattered::<N>(dy, op.experts_per_token)
}

impl Operator for Combine {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let (d, k) = (self.width, self.experts_per_token);
        let letters = format!("rows [r, d={d}] and choice [t, k={k}] i32");
        check("Combine", inputs, &[Spec::rows(d), token_index(Some(k))], letters)?;
        Ok(vec![Spec::tokens(d)])
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[1], &[])
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let y = in_format!(at.dtype, gathered(self, &x[0].to(at.dtype), &x[1]));
        let saved = Saved { input: vec![x[1].clone()], weight: Vec::new() };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        vec![Some(in_format!(at.dtype, spread(self, &saved[0], &dy[0].to(at.dtype)))), None]
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let rows = (t * self.experts_per_token) as f64;
        let width = self.width as f64;
        Cost {
            forward_flops: rows * width,
            saved_elements: rows,
            moved_elements: (rows + t as f64) * width,
            ..Cost::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_reach_the_rows() {
        let choice = Tensor::from_i32(&[4, 2], vec![2, 0, 0, 3, 3, 2, 2, 3]);
        let op = Combine { width: 3, experts: 5, experts_per_token: 2 };
        check(&op, 2, &[random(1, &[8, 3]), choice]);
    }

    #[test]
    fn what_was_dispatched_comes_back_once_for_each_expert() {
        let at = crate::Context { sequence: 4, dtype: crate::DType::F32, loss_scale: 1.0 };
        let choice = Tensor::from_i32(&[4, 2], vec![2, 0, 0, 3, 3, 2, 2, 3]);
        let x = random(1, &[4, 3]);
        let dispatch = crate::Dispatch { width: 3, experts: 5, experts_per_token: 2 };
        let share = Tensor::from_f32(&[4, 2], vec![1.0; 8]);
        let inputs = [x.clone(), choice.clone(), share];
        let rows = dispatch.forward(&at, &[], &inputs).outputs.remove(0);
        let combine = Combine { width: 3, experts: 5, experts_per_token: 2 };
        let y = combine.forward(&at, &[], &[rows, choice]).outputs.remove(0);
        assert!(y.f32().iter().zip(x.f32().iter()).all(|(y, x)| *y == 2.0 * x));
    }
}
