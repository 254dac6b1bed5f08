//! Copies each token once for every expert that shall see it, sorted by expert.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor,
    rows::Rows,
    shape::{check, counts, exact, exact_rows, token_index},
};

/// Makes the routed rows: the tokens of expert 0, then those of expert 1, and so on.
///
/// ```text
/// rows[r, d] = x[t, d]   for each (expert, token t) with expert in choice[t, :], in that order
/// counts[e] = rows of expert e
/// share[r, 1] = share[t, j]   of the same (expert, token t), where choice[t, j] is the expert
/// ```
///
/// Inputs are `x [t, d]`, `choice [t, k]` and `share [t, k]`. Saves the choice for `I`.
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

impl Operator for Dispatch {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let (d, k) = (self.width, self.experts_per_token);
        let letters = format!("x [t, d={d}] and choice [t, k={k}] i32 and share [t, k={k}] f32");
        check("Dispatch", inputs, &[Spec::tokens(d), token_index(Some(k)), exact(k)], letters)?;
        Ok(vec![Spec::rows(d), counts(self.experts), exact_rows()])
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[1], &[])
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let routing = Rows::new(&x[1], self.experts);
        let y = routing.scattered(&x[0].to(at.dtype), self.experts_per_token);
        let (share, counts) = (routing.sorted(&x[2]), routing.counts());
        let saved = Saved { input: vec![x[1].clone()], weight: Vec::new() };
        Forward { outputs: vec![y, counts, share], saved, observed: None }
    }

    /// `dy` has the gradients of rows and shares; the counts between them have none.
    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let (choice, rows) = (&saved[0], dy[0].to(at.dtype));
        let routing = Rows::new(choice, self.experts);
        let dx = routing.gathered(&rows, self.experts_per_token);
        let dshare = routing.unsorted(&dy[2], choice.shape());
        vec![Some(dx), None, Some(dshare)]
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let rows = (t * self.experts_per_token) as f64;
        let width = self.width as f64;
        Cost {
            input_flops: rows * width,
            saved_elements: rows,
            moved_elements: (t as f64 + rows) * width + 2.0 * rows,
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
        // Shares are exact: BF16 values in F32, so that both precisions see the same.
        let share = Tensor::from_f32(&[4, 2], vec![0.5, -1.0, 2.0, 0.25, 1.5, 3.0, -0.75, 1.0]);
        check(&op, 2, &[random(1, &[4, 3]), choice, share]);
    }
}
