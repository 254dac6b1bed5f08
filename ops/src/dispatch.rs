//! Copies each token once for every expert that shall see it, sorted by expert.

use kernels::{number::Number, permute::Routing};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor,
    shape::{check, counts, token_index},
    tensor::in_format,
};

/// Makes the routed rows: the tokens of expert 0, then those of expert 1, and so on.
///
/// ```text
/// rows[r, d] = x[t, d]   for each (expert, token t) with expert in choice[t, :], in that order
/// counts[e] = rows of expert e
/// ```
///
/// Inputs are `x [t, d]` and `choice [t, k]`. Saves the choice for `I`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// Width of a token, `d`.
    pub width: usize,
    /// Number of experts, `e`.
    pub experts: usize,
    /// Experts that see each token, `k`.
    pub experts_per_token: usize,
}

fn scattered<N: Number>(op: &Dispatch, x: &Tensor, routing: &Routing) -> Tensor {
    let rows = routing.rows.len();
    let mut y = vec![N::ZERO; rows * op.width];
    routing.scatter::<N>(x.numbers(), op.width, op.experts_per_token, &mut y);
    Tensor::of(&[rows, op.width], y)
}

/// The sum of the gradients of each token's rows.
fn gathered<N: Number>(op: &Dispatch, dy: &Tensor, choice: &Tensor) -> Tensor {
    let shape = [choice.shape()[0], op.width];
    let mut dx = vec![N::ZERO; shape[0] * shape[1]];
    let routing = Routing::new(choice.i32(), op.experts);
    routing.gather_sum::<N>(dy.numbers(), op.width, &vec![1.0; choice.len()], &mut dx);
    Tensor::of(&shape, dx)
}

impl Operator for Dispatch {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let (d, k) = (self.width, self.experts_per_token);
        let letters = format!("x [t, d={d}] and choice [t, k={k}] i32");
        check("Dispatch", inputs, &[Spec::tokens(d), token_index(Some(k))], letters)?;
        Ok(vec![Spec::rows(d), counts(self.experts)])
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[1], &[])
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let routing = Routing::new(x[1].i32(), self.experts);
        let y = in_format!(at.dtype, scattered(self, &x[0].to(at.dtype), &routing));
        let counts = Tensor::from_i32(&[self.experts], routing.counts);
        let saved = Saved { input: vec![x[1].clone()], weight: Vec::new() };
        Forward { outputs: vec![y, counts], saved, observed: None }
    }

    /// `dy` begins with the gradient of the rows; the counts have none.
    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        vec![Some(in_format!(at.dtype, gathered(self, &dy[0].to(at.dtype), &saved[0]))), None]
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let rows = (t * self.experts_per_token) as f64;
        let width = self.width as f64;
        Cost {
            input_flops: rows * width,
            saved_elements: rows,
            moved_elements: (t as f64 + rows) * width,
            ..Cost::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_of_all_rows_of_a_token_come_back() {
        let choice = Tensor::from_i32(&[4, 2], vec![2, 0, 0, 3, 3, 2, 2, 3]);
        let op = Dispatch { width: 3, experts: 5, experts_per_token: 2 };
        check(&op, 2, &[random(1, &[4, 3]), choice]);
    }
}
