//! The router: which experts see a token, and with which share.
//!
//! DeepSeek-V3, arXiv:2412.19437, section 2.1.2, as the K2 report takes it over.

use kernels::{gemm::multiply, router};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Floats, Forward, Fresh, Init, Keeps, Kept, Observed, Operator, Rule, Saved,
    ShapeError, Spec, Tensor, WeightSpec,
    linear::default_init_std,
    on_gpu::routing::{self, Routed},
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

    /// How experts are chosen.
    pub(crate) fn choice(&self) -> router::Choice {
        router::Choice {
            experts: self.experts,
            per_token: self.experts_per_token,
            groups: self.groups,
            groups_per_token: self.groups_per_token,
        }
    }

    /// Gradient of the logits `[t, e]`, from the saved choice and scores and the last of `dy`.
    fn dlogits(&self, saved: &[Tensor], dy: &[Tensor]) -> Tensor {
        let (choice, chosen, dshare) = (&saved[0], &saved[1], &dy[dy.len() - 1]);
        if let Some(gpu) = choice.gpu() {
            return routing::logits(gpu, self, choice, chosen, dshare);
        }
        let (t, e, k) = (choice.shape()[0], self.experts, self.experts_per_token);
        let mut dlogits = vec![0.0; t * e];
        let (choice, chosen) = (choice.i32(), chosen.f32());
        router::backward(e, k, self.scaling, choice, &chosen, &dshare.f32(), &mut dlogits);
        Tensor::from_f32(&[t, e], dlogits)
    }

    /// Choice, chosen scores, shares, and tokens of each expert.
    fn routed(&self, x: &Tensor, w: &[Tensor]) -> ([Tensor; 3], Observed) {
        if let Some(gpu) = x.gpu() {
            let Routed { choice, chosen, share, load } = routing::routed(gpu, self, x, w);
            return (
                [choice, chosen, share],
                Observed::later(vec![load], |all| load_of(all[0].i32())),
            );
        }
        let (e, k, t) = (self.experts, self.experts_per_token, x.shape()[0]);
        let mut scores: Vec<f32> = multiply(x.matrix(), w[0].matrix().transposed());
        router::scores(&mut scores);
        let mut choice = vec![0; t * k];
        router::choose(&self.choice(), &scores, &w[1].f32(), &mut choice);
        let (mut chosen, mut share) = (vec![0.0; t * k], vec![0.0; t * k]);
        router::shares(e, k, self.scaling, &scores, &choice, &mut chosen, &mut share);
        let mut load = vec![0; e];
        choice.iter().for_each(|&expert| load[expert as usize] += 1);
        let [chosen, share] = [chosen, share].map(|values| Tensor::from_f32(&[t, k], values));
        ([Tensor::from_i32(&[t, k], choice), chosen, share], load_of(&load))
    }
}

fn load_of(load: &[i32]) -> Observed {
    Observed::Load(load.iter().map(|&tokens| tokens as u64).collect())
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

    fn keeps(&self) -> Keeps {
        let (choice, chosen) = (Kept::Output(0), Kept::Fresh(0));
        Keeps {
            fresh: vec![Fresh::f32_per_token(self.experts_per_token)],
            input: vec![choice, chosen],
            weight: vec![choice, chosen, Kept::Input(0)],
            passes_gradient: false,
        }
    }

    fn forward(&self, _at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let ([choice, chosen, share], load) = self.routed(&x[0], w);
        let input = vec![choice.clone(), chosen.clone()];
        let saved = Saved { input, weight: vec![choice.clone(), chosen, x[0].clone()] };
        Forward { outputs: vec![choice, share], saved, observed: Some(load) }
    }

    /// `dy` ends with the gradient of the shares; the choice has none.
    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        vec![Some(self.dlogits(saved, dy).back_through(&w[0], at.dtype))]
    }

    /// `dy` ends with the gradient of the shares; the bias has none.
    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
        dw: &mut [Floats],
    ) {
        dw[0].accumulate(0, &self.dlogits(saved, dy), &saved[2]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    const ROUTER: Router = Router {
        width: 6,
        experts: 8,
        experts_per_token: 3,
        groups: 4,
        groups_per_token: 2,
        scaling: 2.5,
        init_std: 1.0,
    };
    const AT: Context = Context { sequence: 5, dtype: crate::DType::F32, loss_scale: 1.0 };

    #[test]
    fn gradients_flow_through_the_chosen_scores_and_their_sum() {
        check(&ROUTER, 5, &[random(1, &[5, 6])]);
        check(&Router { groups: 1, groups_per_token: 1, ..ROUTER }, 5, &[random(2, &[5, 6])]);
    }

    #[test]
    fn shares_sum_to_the_scaling_and_every_token_counts_k_times() {
        let w = crate::grad_check::random_weights(&ROUTER);
        let forward = ROUTER.forward(&AT, &w, &[random(1, &[5, 6])]);
        for share in forward.outputs[1].f32().chunks(3) {
            assert!((share.iter().sum::<f32>() - 2.5).abs() < 1e-5);
        }
        let Some(Observed::Load(load)) = forward.observed else { panic!("no load") };
        assert_eq!((load.len(), load.iter().sum::<u64>()), (8, 15));
    }

    #[test]
    fn a_bias_changes_who_is_chosen_but_no_share_of_those_who_stay() {
        let router = Router { groups: 1, groups_per_token: 1, ..ROUTER };
        let w = |bias: Vec<f32>| {
            let mut w = crate::grad_check::random_weights(&router);
            w[1] = Tensor::from_f32(&[8], bias);
            w
        };
        let run = |bias| router.forward(&AT, &w(bias), &[random(1, &[5, 6])]);
        let (plain, even) = (run(vec![0.0; 8]), run(vec![0.5; 8]));
        assert_eq!(plain.outputs[0].i32(), even.outputs[0].i32());
        assert_eq!(plain.outputs[1].f32(), even.outputs[1].f32());
        let pushed = run([vec![9.0], vec![0.0; 7]].concat());
        assert!(pushed.outputs[0].i32().chunks(3).all(|choice| choice[0] == 0));
    }

    #[test]
    fn groups_that_cannot_fill_a_token_are_refused() {
        let tight = Router { groups_per_token: 1, ..ROUTER };
        let error = tight.infer(&[Spec::tokens(6)]).unwrap_err().to_string();
        assert!(error.contains("experts_per_token=3"), "{error}");
        assert!(Router { groups: 3, ..ROUTER }.infer(&[Spec::tokens(6)]).is_err());
        assert!(ROUTER.infer(&[Spec::tokens(6)]).is_ok());
    }
}
