//! Attention over latent keys and values that one projection has expanded per head.
//!
//! DeepSeek-V2, arXiv:2405.04434, section 2.1; YaRN, arXiv:2309.00071.

use serde::{Deserialize, Serialize};

use crate::{Context, Cost, Forward, Operator, ShapeError, Spec, Tensor, WeightSpec, shape::check};

/// Causal attention with a rotary part of the key that all heads share.
///
/// ```text
/// q[t, h] = [q_nope | rope(q_rope)]      k[t, h] = [k_nope[t, h] | rope(k_rope[t])]
/// a[t, h, u] = softmax over u <= t of scale * q[t, h] . k[u, h]
/// y[t, h] = sum_u a[t, h, u] * v[u, h]
/// scale = (nope + rope)^-0.5 * m(mscale_all_dim)^2,   m(c) = 0.1 c ln(factor) + 1
/// ```
///
/// Inputs are `q [t, h(nope+rope)]`, `kv [t, h(nope+value)]` (per head: key, then value) and
/// `k_rope [t, rope]`. A token attends only inside its own sequence; positions restart at 0 with
/// each. Rotary pairs are neighbours, `(2i, 2i+1)`, as in the released weights.
/// Saves its inputs and the log-sum-exp of each (token, head) for `I`, which recomputes the rest;
/// `t x t` is never held. Observes the largest softmax input of each head.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MlaAttention {
    /// Number of heads, `h`.
    pub heads: usize,
    /// Width of a head's query and key without position.
    pub nope: usize,
    /// Width of the rotary part of query and key; even.
    pub rope: usize,
    /// Width of a head's value.
    pub value: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the frequencies for longer contexts.
    #[serde(default)]
    pub yarn: Option<Yarn>,
}

/// How YaRN stretches the rotary frequencies; arXiv:2309.00071, fields as in `rope_scaling`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Yarn {
    /// New context over the original one.
    pub factor: f64,
    /// Context the frequencies were first trained with, in tokens.
    pub original: usize,
    /// Pairs that turn more often than this over the original context stay as they are.
    pub beta_fast: f64,
    /// Pairs that turn less often than this are slowed by `factor`.
    pub beta_slow: f64,
    /// Growth of cosine and sine.
    pub mscale: f64,
    /// Growth of the softmax scale, which divides that of cosine and sine.
    pub mscale_all_dim: f64,
}

impl Operator for MlaAttention {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let (q, kv) = (self.heads * (self.nope + self.rope), self.heads * (self.nope + self.value));
        let expected = [Spec::tokens(q), Spec::tokens(kv), Spec::tokens(self.rope)];
        let letters = format!(
            "q [t, h(nope+rope)={q}] and kv [t, h(nope+value)={kv}] and k_rope [t, rope={}] \
             with an even rope",
            self.rope
        );
        check("MlaAttention", inputs, &expected, letters.clone())?;
        if !self.rope.is_multiple_of(2) {
            return Err(crate::shape::mismatch("MlaAttention", inputs, letters));
        }
        Ok(vec![Spec::tokens(self.heads * self.value)])
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

    fn cost(&self, t: usize, s: usize) -> Cost {
        let (key, width) = (self.nope + self.rope, self.nope + self.value);
        // Half of the pairs are causal; a multiplication and an addition each.
        let pairs = (t * self.heads) as f64 * s as f64;
        let read = (t * (self.heads * (key + width) + self.rope)) as f64;
        Cost {
            forward_flops: pairs * (key + self.value) as f64,
            input_flops: pairs * (3 * key + 2 * self.value) as f64,
            weight_flops: 0.0,
            saved_elements: read + (t * self.heads) as f64,
            moved_elements: read + (t * self.heads * self.value) as f64,
        }
    }
}
