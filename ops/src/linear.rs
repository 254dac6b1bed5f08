//! A linear map of each token, without bias.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Floats, Forward, Init, Keeps, Operator, Rule, Saved, ShapeError, Spec, Tensor,
    WeightSpec, shape::check,
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

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[], &[0])
    }

    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let y = x[0].through(&w[0], at.dtype);
        let saved = Saved { input: Vec::new(), weight: vec![x[0].clone()] };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        _saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        vec![Some(dy[0].back_through(&w[0], at.dtype))]
    }

    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
        dw: &mut [Floats],
    ) {
        dw[0].accumulate(0, &dy[0], &saved[0]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_agree_with_differences() {
        check(&Linear { input: 5, output: 7, init_std: 1.0 }, 4, &[random(1, &[4, 5])]);
    }

    #[test]
    fn a_wrong_width_is_named_with_what_was_expected() {
        let linear = Linear { input: 5, output: 7, init_std: 1.0 };
        let error = linear.infer(&[Spec::tokens(6)]).unwrap_err();
        assert_eq!(error.to_string(), "Linear expects [t, i=5], got [t, 6]");
        let error = linear.infer(&[]).unwrap_err();
        assert_eq!(error.to_string(), "Linear expects [t, i=5], got nothing");
    }
}
