//! Attention over latent keys and values that one projection has expanded per head.
//!
//! DeepSeek-V2, arXiv:2405.04434, section 2.1; YaRN, arXiv:2309.00071.

use kernels::{
    attention::{self, Gradients, Heads, Inputs},
    cuda::Float,
    rope::Rotation,
};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Fresh, Keeps, Kept, Observed, Operator, Saved, ShapeError, Spec,
    Tensor, Yarn, on_gpu::attention as on_gpu, shape::check, tensor::in_format, yarn,
};

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
/// Saves its inputs, its output and the log-sum-exp of each (token, head) for `I`, which recomputes
/// the rest; `t x t` is never held. The output, which the projection behind it keeps anyway, spares
/// GPUs a pass: `sum_u a da` is the sum over columns of `y dy`. Observes the largest softmax input
/// of each head.
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

impl MlaAttention {
    pub(crate) fn extents(&self) -> Heads {
        let MlaAttention { heads, nope, rope, value, .. } = *self;
        Heads { heads, nope, rope, value, scale: self.scale() }
    }

    /// Factor of the products before the softmax.
    pub fn scale(&self) -> f32 {
        let growth = self.yarn.as_ref().map_or(1.0, Yarn::scale_growth);
        (growth / ((self.nope + self.rope) as f64).sqrt()) as f32
    }

    /// What tells its rotation of so many positions from others.
    pub(crate) fn key(&self, positions: usize) -> String {
        format!("{} {} {:?} {positions}", self.rope, self.rope_theta, self.yarn)
    }

    /// Cosines and sines of a range of positions.
    pub(crate) fn rotation(&self, first: usize, positions: usize) -> Rotation {
        let frequencies = yarn::frequencies(self.rope, self.rope_theta, self.yarn.as_ref());
        let magnitude = self.yarn.as_ref().map_or(1.0, Yarn::magnitude);
        Rotation::new(&frequencies, magnitude, first, positions)
    }
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

    fn keeps(&self) -> Keeps {
        let mut keeps = Keeps::inputs(&[0, 1, 2], &[]);
        keeps.fresh.push(Fresh::f32_per_token(self.heads));
        keeps.input.extend([Kept::Fresh(0), Kept::Output(0)]);
        keeps
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let inputs: Vec<Tensor> = x.iter().map(|x| x.to(at.dtype)).collect();
        let (y, log_sums, observed) = in_format!(at.dtype, forward(self, at.sequence, &inputs));
        let mut input = x.to_vec();
        input.extend([log_sums, y.clone()]);
        let saved = Saved { input, weight: Vec::new() };
        Forward { outputs: vec![y], saved, observed: Some(observed) }
    }

    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let inputs: Vec<Tensor> = saved[..3].iter().map(|x| x.to(at.dtype)).collect();
        let (log_sums, y, dy) = (&saved[3], saved[4].to(at.dtype), dy[0].to(at.dtype));
        in_format!(at.dtype, backward(self, at.sequence, &inputs, log_sums, &y, &dy))
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

fn inputs<N: Float>(x: &[Tensor]) -> Inputs<'_, N> {
    Inputs { q: x[0].numbers(), kv: x[1].numbers(), k_rope: x[2].numbers() }
}

/// The output, the log-sum-exps and the largest softmax inputs.
fn forward<N: Float>(op: &MlaAttention, s: usize, x: &[Tensor]) -> (Tensor, Tensor, Observed) {
    if let Some(gpu) = x[0].gpu() {
        let [y, log_sums, largest] = on_gpu::forward::<N>(gpu, op, s, x);
        let observed =
            Observed::later(vec![largest], |all| Observed::MaxLogits(all[0].f32().into_owned()));
        return (y, log_sums, observed);
    }
    let (t, heads) = (x[0].shape()[0], op.extents());
    let mut y = vec![N::ZERO; t * op.heads * op.value];
    let (mut log_sums, mut largest) = (vec![0.0; t * op.heads], vec![0.0; op.heads]);
    let (x, rotation) = (inputs::<N>(x), op.rotation(0, s));
    attention::forward(&heads, &rotation, s, x, &mut y, &mut log_sums, &mut largest);
    let y = Tensor::of(&[t, op.heads * op.value], y);
    (y, Tensor::from_f32(&[t, op.heads], log_sums), Observed::MaxLogits(largest))
}

fn backward<N: Float>(
    op: &MlaAttention,
    s: usize,
    x: &[Tensor],
    log_sums: &Tensor,
    y: &Tensor,
    dy: &Tensor,
) -> Vec<Option<Tensor>> {
    if let Some(gpu) = x[0].gpu() {
        return on_gpu::backward::<N>(gpu, op, s, x, log_sums, y, dy);
    }
    let [mut q, mut kv, mut k_rope] = [0, 1, 2].map(|which| vec![N::ZERO; x[which].len()]);
    let dx = Gradients { q: &mut q, kv: &mut kv, k_rope: &mut k_rope };
    let (rotation, log_sums, dy) = (op.rotation(0, s), log_sums.f32(), dy.numbers());
    attention::backward(&op.extents(), &rotation, s, inputs::<N>(x), &log_sums, dy, dx);
    let gradients = [q, kv, k_rope].into_iter().zip(x);
    gradients.map(|(dx, x)| Some(Tensor::of(x.shape(), dx))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    fn attention() -> MlaAttention {
        let yarn = Yarn {
            factor: 4.0,
            original: 8,
            beta_fast: 2.0,
            beta_slow: 0.5,
            mscale: 1.0,
            mscale_all_dim: 0.5,
        };
        MlaAttention { heads: 2, nope: 3, rope: 4, value: 5, rope_theta: 50.0, yarn: Some(yarn) }
    }

    #[test]
    fn gradients_agree_with_differences_in_two_sequences() {
        let op = attention();
        check(&op, 4, &[random(1, &[8, 14]), random(2, &[8, 16]), random(3, &[8, 4])]);
        check(
            &MlaAttention { yarn: None, ..op },
            3,
            &[random(1, &[3, 14]), random(2, &[3, 16]), random(3, &[3, 4])],
        );
    }

    #[test]
    fn an_odd_rotary_width_is_refused() {
        let op = MlaAttention { rope: 3, ..attention() };
        let inputs = [Spec::tokens(12), Spec::tokens(16), Spec::tokens(3)];
        assert!(op.infer(&inputs).unwrap_err().to_string().contains("even rope"));
    }
}
