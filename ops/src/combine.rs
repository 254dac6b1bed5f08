//! Brings the experts' rows back to their tokens and adds them by share.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Operator, ShapeError, Spec, Tensor, WeightSpec,
    shape::{check, exact, token_index},
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

impl Operator for Combine {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let (d, k) = (self.width, self.experts_per_token);
        let letters = format!("rows [r, d={d}] and choice [t, k={k}] i32 and share [t, k={k}] f32");
        check("Combine", inputs, &[Spec::rows(d), token_index(Some(k)), exact(k)], letters)?;
        Ok(vec![Spec::tokens(d)])
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
