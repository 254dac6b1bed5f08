//! A linear map for each expert over the rows routed to it.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Init, Operator, Rule, ShapeError, Spec, Tensor, WeightSpec,
    linear::default_init_std,
    shape::{check, counts},
};

/// Multiplies each row by the matrix of its expert.
///
/// ```text
/// y[r, o] = sum_i rows[r, i] * w_e[o, i]   for the counts[e] rows of expert e, experts in order
/// ```
///
/// Inputs are `rows [r, i]`, sorted by expert, and `counts [l]`; an expert may have no row.
/// Saves the counts for `I`, the rows and the counts for `W`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupedLinear {
    /// Number of experts: of the model in a job file, of the group when it runs.
    pub experts: usize,
    /// Width of a row before, `i`.
    pub input: usize,
    /// Width of a row after, `o`.
    pub output: usize,
    /// Standard deviation of the weights before the first step.
    #[serde(default = "default_init_std")]
    pub init_std: f32,
}

impl GroupedLinear {
    /// The same operator for a group that holds `experts` of the experts.
    pub fn part(&self, experts: usize) -> Self {
        GroupedLinear { experts, ..self.clone() }
    }
}

impl Operator for GroupedLinear {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let letters = format!("rows [r, i={}] and counts [e={}] i32", self.input, self.experts);
        let expected = [Spec::rows(self.input), counts(self.experts)];
        check("GroupedLinear", inputs, &expected, letters)?;
        Ok(vec![Spec::rows(self.output)])
    }

    fn weights(&self) -> Vec<WeightSpec> {
        let weight = |expert| WeightSpec {
            name: "weight",
            expert: Some(expert),
            shape: vec![self.output, self.input],
            init: Init::Normal(self.init_std),
            rule: Rule::Muon,
            exact: false,
        };
        (0..self.experts).map(weight).collect()
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

    fn cost(&self, r: usize, _s: usize) -> Cost {
        let flops = 2.0 * (r * self.input * self.output) as f64;
        Cost {
            forward_flops: flops,
            input_flops: flops,
            weight_flops: flops,
            saved_elements: (r * self.input + self.experts) as f64,
            moved_elements: (r * (self.input + self.output)) as f64,
        }
    }
}
