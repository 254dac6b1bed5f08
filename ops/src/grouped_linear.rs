//! A linear map for each expert over the rows routed to it.

use std::ops::Range;

use kernels::{cuda::Float, gemm::multiply_grouped};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Floats, Forward, Init, Keeps, Operator, Rule, Saved, ShapeError, Spec, Tensor,
    WeightSpec,
    linear::default_init_std,
    on_gpu::products,
    shape::{check, counts},
    tensor::in_format,
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

/// Pairs each expert that has rows with them; `each` has one element per expert.
pub(crate) fn experts<T>(
    each: impl IntoIterator<Item = T>,
    counts: &[i32],
) -> impl Iterator<Item = (T, Range<usize>)> {
    let rows = counts.iter().scan(0, |end, &count| {
        let start = *end;
        *end += count as usize;
        Some(start..*end)
    });
    each.into_iter().zip(rows).filter(|(_, rows)| !rows.is_empty())
}

/// The rows of each expert times its weight, turned or not, `[r, width]`.
fn through_experts<N: Float>(
    rows: &Tensor,
    w: &[Tensor],
    counts: &[i32],
    width: usize,
    turned: bool,
) -> Tensor {
    let counts: Vec<usize> = counts.iter().map(|&count| count as usize).collect();
    if let Some(gpu) = rows.gpu() {
        return products::grouped::<N>(gpu, rows, w, &counts, width, turned);
    }
    let factor = |expert: usize| match turned {
        true => w[expert].matrix().transposed().into(),
        false => w[expert].matrix().into(),
    };
    let y = multiply_grouped::<N>(rows.matrix(), &counts, width, factor);
    Tensor::of(&[rows.shape()[0], width], y)
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

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[1], &[0, 1])
    }

    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let counts = x[1].i32();
        let y = in_format!(at.dtype, through_experts(&x[0], w, counts, self.output, true));
        let saved = Saved { input: vec![x[1].clone()], weight: x.to_vec() };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let (dy, counts) = (&dy[0], saved[0].i32());
        let dx = in_format!(at.dtype, through_experts(dy, w, counts, self.input, false));
        vec![Some(dx), None]
    }

    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
        dw: &mut [Floats],
    ) {
        Floats::accumulate_grouped(dw, saved[1].i32(), &dy[0], &saved[0]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    #[test]
    fn gradients_agree_with_differences_even_with_an_idle_expert() {
        let counts = Tensor::from_i32(&[3], vec![2, 0, 3]);
        let op = GroupedLinear { experts: 3, input: 4, output: 5, init_std: 1.0 };
        check(&op, 1, &[random(1, &[5, 4]), counts]);
    }

    #[test]
    fn no_row_at_all_is_no_row_and_no_gradient() {
        let op = GroupedLinear { experts: 3, input: 4, output: 5, init_std: 1.0 }.part(2);
        let at = Context { sequence: 1, dtype: crate::DType::F32, loss_scale: 1.0 };
        let w = vec![random(1, &[5, 4]), random(2, &[5, 4])];
        let x = [Tensor::from_f32(&[0, 4], vec![]), Tensor::from_i32(&[2], vec![0, 0])];
        let forward = op.forward(&at, &w, &x);
        assert_eq!(forward.outputs[0].shape(), [0, 5]);
        let mut dw = vec![Floats::from(vec![0.0; 20]); 2];
        let dy = forward.outputs.clone();
        let dx = op.backward_input(&at, &w, &forward.saved.input, &dy);
        assert_eq!(dx[0].as_ref().unwrap().shape(), [0, 4]);
        op.backward_weight(&at, &w, &forward.saved.weight, &dy, &mut dw);
        assert_eq!(dw, vec![Floats::from(vec![0.0; 20]); 2]);
    }
}
