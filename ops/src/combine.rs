//! Brings the experts' rows back to their tokens and adds them.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor,
    rows::Rows,
    shape::{check, token_index},
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
        let rows = x[0].to(at.dtype);
        let y = Rows::new(&x[1], self.experts).gathered(&rows, self.experts_per_token);
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
        // The gradient of each row is that of its token.
        let (routing, dy) = (Rows::new(&saved[0], self.experts), dy[0].to(at.dtype));
        vec![Some(routing.scattered(&dy, self.experts_per_token)), None]
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
