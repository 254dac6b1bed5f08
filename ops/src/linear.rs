//! A linear map of each token, without bias.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Init, Operator, Rule, ShapeError, Spec, Tensor, WeightSpec,
    shape::check,
};

/// Multiplies each token by a matrix.
///
/// ```text
/// y[t, o] = sum_i x[t, i] * w[o, i]
/// ```
///
/// `I` needs nothing but the weight; saves `x_ti` for `W`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Width of a token before, `i`.
    pub input: usize,
    /// Width of a token after, `o`.
    pub output: usize,
    /// Standard deviation of the weight before the first step.
    #[serde(default = "default_init_std")]
    pub init_std: f32,
}

/// 0.02, `initializer_range` of the released K2 configuration.
pub(crate) fn default_init_std() -> f32 {
    0.02
}

impl Operator for Linear {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let expected = Spec::tokens(self.input);
        check("Linear", inputs, &[expected], format!("[t, i={}]", self.input))?;
        Ok(vec![Spec::tokens(self.output)])
    }

    fn weights(&self) -> Vec<WeightSpec> {
        vec![WeightSpec {
            name: "weight",
            expert: None,
            shape: vec![self.output, self.input],
            init: Init::Normal(self.init_std),
            rule: Rule::Muon,
            exact: false,
        }]
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
        let flops = 2.0 * (t * self.input * self.output) as f64;
        Cost {
            forward_flops: flops,
            input_flops: flops,
            weight_flops: flops,
            saved_elements: (t * self.input) as f64,
            moved_elements: (t * (self.input + self.output)) as f64,
        }
    }
}
