//! Brings the experts' rows back to their tokens and adds them by share.

use kernels::{number::Number, permute::Routing};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor,
    shape::{check, exact, token_index},
    tensor::in_format,
};

/// Adds the rows of each token, weighted by the router's shares, in the router's order.
///
/// ```text
/// y[t, d] = sum_k share[t, k] * rows[row of (choice[t, k], t), d]
/// ```
///
/// Inputs are `rows [r, d]` in the order of [`Dispatch`](crate::Dispatch), `choice [t, k]` and
/// `share [t, k]`. Saves all three for `I`.
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

fn gathered<N: Number>(op: &Combine, rows: &Tensor, choice: &Tensor, share: &[f32]) -> Tensor {
    let shape = [choice.shape()[0], op.width];
    let mut y = vec![N::ZERO; shape[0] * shape[1]];
    let routing = Routing::new(choice.i32(), op.experts);
    routing.gather_sum::<N>(rows.numbers(), op.width, share, &mut y);
    Tensor::of(&shape, y)
}

/// Gradients of the rows and of the shares.
fn spread<N: Number>(
    op: &Combine,
    rows: &Tensor,
    choice: &Tensor,
    share: &[f32],
    dy: &Tensor,
) -> (Tensor, Vec<f32>) {
    let routing = Routing::new(choice.i32(), op.experts);
    let mut drows = vec![N::ZERO; rows.len()];
    routing.scatter_scaled::<N>(dy.numbers(), op.width, share, &mut drows);
    let dshare = routing.dots::<N>(rows.numbers(), op.width, dy.numbers());
    (Tensor::of(rows.shape(), drows), dshare)
}

impl Operator for Combine {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let (d, k) = (self.width, self.experts_per_token);
        let letters = format!("rows [r, d={d}] and choice [t, k={k}] i32 and share [t, k={k}] f32");
        check("Combine", inputs, &[Spec::rows(d), token_index(Some(k)), exact(k)], letters)?;
        Ok(vec![Spec::tokens(d)])
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1, 2], &[])
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let y = in_format!(at.dtype, gathered(self, &x[0].to(at.dtype), &x[1], &x[2].f32()));
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
        let [rows, dy] = [&saved[0], &dy[0]].map(|x| x.to(at.dtype));
        let (choice, share) = (&saved[1], &saved[2]);
        let (drows, dshare) = in_format!(at.dtype, spread(self, &rows, choice, &share.f32(), &dy));
        vec![Some(drows), None, Some(Tensor::from_f32(share.shape(), dshare))]
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let rows = (t * self.experts_per_token) as f64;
        let width = self.width as f64;
        Cost {
            forward_flops: 2.0 * rows * width,
            input_flops: 3.0 * rows * width,
            weight_flops: 0.0,
            saved_elements: rows * (width + 2.0),
            moved_elements: (rows + t as f64) * width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_reach_rows_and_shares() {
        let choice = Tensor::from_i32(&[4, 2], vec![2, 0, 0, 3, 3, 2, 2, 3]);
        let op = Combine { width: 3, experts: 5, experts_per_token: 2 };
        let (rows, share) = (random(1, &[8, 3]), random(2, &[4, 2]));
        // Shares are exact: BF16 values in F32, so that both precisions see the same.
        let share = Tensor::rounded(&[4, 2], share.f32().into_owned(), crate::DType::Bf16);
        let share = Tensor::from_f32(&[4, 2], share.f32().into_owned());
        check(&op, 2, &[rows, choice, share]);
    }

    #[test]
    fn shares_of_one_bring_back_the_sum_of_what_was_dispatched() {
        let at = crate::Context { sequence: 4, dtype: crate::DType::F32, loss_scale: 1.0 };
        let choice = Tensor::from_i32(&[4, 2], vec![2, 0, 0, 3, 3, 2, 2, 3]);
        let x = random(1, &[4, 3]);
        let dispatch = crate::Dispatch { width: 3, experts: 5, experts_per_token: 2 };
        let rows = dispatch.forward(&at, &[], &[x.clone(), choice.clone()]).outputs.remove(0);
        let combine = Combine { width: 3, experts: 5, experts_per_token: 2 };
        let share = Tensor::from_f32(&[4, 2], vec![1.0; 8]);
        let y = combine.forward(&at, &[], &[rows, choice, share]).outputs.remove(0);
        assert!(y.f32().iter().zip(x.f32().iter()).all(|(y, x)| *y == 2.0 * x));
    }
}
