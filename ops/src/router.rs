//! The router: which experts see a token, and with which share.
//!
//! DeepSeek-V3, arXiv:2412.19437, section 2.1.2, as the K2 report takes it over.

use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Init, Operator, Rule, ShapeError, Spec, Tensor, WeightSpec,
    linear::default_init_std,
    shape::{check, exact, mismatch, token_index},
};

/// Chooses `k` experts for each token by biased scores and shares it by unbiased ones.
///
/// ```text
/// s[t, e] = sigmoid(sum_d x[t, d] * w[e, d])                    always in f32
/// choice[t, :] = the k largest of s[t, e] + bias[e], largest first, equal ones by number
/// share[t, j] = scaling * s[t, choice[t, j]] / (sum_j s[t, choice[t, j]] + 1e-20)
/// ```
///
/// With more than one group, only the experts of the `groups_per_token` groups with the largest
/// sum of their two best biased scores can be chosen. The gradient flows through the chosen
/// scores and their normalisation, never through choice or bias.
/// Saves the chosen scores and the choice for both halves, and `x_td` for `W`. Observes the
/// number of tokens of each expert.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// Width of a token, `d`.
    pub width: usize,
    /// Number of experts, `e`.
    pub experts: usize,
    /// Experts that see each token, `k`.
    pub experts_per_token: usize,
    /// Groups of neighbouring experts of which only some are open to a token.
    #[serde(default = "one")]
    pub groups: usize,
    /// Groups open to each token.
    #[serde(default = "one")]
    pub groups_per_token: usize,
    /// Sum of the shares of a token.
    #[serde(default = "default_scaling")]
    pub scaling: f32,
    /// Standard deviation of the weight before the first step.
    #[serde(default = "default_init_std")]
    pub init_std: f32,
}

fn one() -> usize {
    1
}

fn default_scaling() -> f32 {
    1.0
}

impl Router {
    /// Whether enough experts of equal groups are open to each token.
    fn is_consistent(&self) -> bool {
        self.groups > 0
            && self.experts.is_multiple_of(self.groups)
            && (1..=self.groups).contains(&self.groups_per_token)
            && (1..=self.experts / self.groups * self.groups_per_token)
                .contains(&self.experts_per_token)
    }
}

impl Operator for Router {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        check("Router", inputs, &[Spec::tokens(self.width)], format!("[t, d={}]", self.width))?;
        if !self.is_consistent() {
            let expected = format!(
                "experts={} in equal groups={}, of which groups_per_token={} hold at least \
                 experts_per_token={}",
                self.experts, self.groups, self.groups_per_token, self.experts_per_token
            );
            return Err(mismatch("Router", inputs, expected));
        }
        let k = self.experts_per_token;
        Ok(vec![token_index(Some(k)), exact(k)])
    }

    fn weights(&self) -> Vec<WeightSpec> {
        let weight = WeightSpec {
            name: "weight",
            expert: None,
            shape: vec![self.experts, self.width],
            init: Init::Normal(self.init_std),
            rule: Rule::Muon,
            exact: true,
        };
        let bias = WeightSpec {
            name: "e_score_correction_bias",
            shape: vec![self.experts],
            init: Init::Zeros,
            rule: Rule::Balance,
            ..weight.clone()
        };
        vec![weight, bias]
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
        let flops = 2.0 * (t * self.width * self.experts) as f64;
        let chosen = (2 * t * self.experts_per_token) as f64;
        Cost {
            forward_flops: flops,
            input_flops: flops,
            weight_flops: flops,
            saved_elements: (t * self.width) as f64 + chosen,
            moved_elements: (t * self.width) as f64 + chosen,
        }
    }
}
