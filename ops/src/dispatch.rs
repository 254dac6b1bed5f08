//! Copies each token once for every expert that shall see it, sorted by expert.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Operator, ShapeError, Spec, Tensor, WeightSpec,
    shape::{check, counts, token_index},
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

impl Operator for Dispatch {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let (d, k) = (self.width, self.experts_per_token);
        let letters = format!("x [t, d={d}] and choice [t, k={k}] i32");
        check("Dispatch", inputs, &[Spec::tokens(d), token_index(Some(k))], letters)?;
        Ok(vec![Spec::rows(d), counts(self.experts)])
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
            input_flops: rows * width,
            saved_elements: rows,
            moved_elements: (t as f64 + rows) * width,
            ..Cost::default()
        }
    }
}
