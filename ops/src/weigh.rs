//! Scales each routed row by its token's share, where the row was made.

use kernels::{
    cuda::Float,
    reduce::{dot, scaled},
};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Forward, Keeps, Operator, Saved, ShapeError, Spec, Tensor,
    on_gpu::routing,
    shape::{check, exact_rows},
    tensor::in_format,
};

/// Multiplies each row by its share.
///
/// ```text
/// y[r, d] = share[r] * rows[r, d]
/// dshare[r] = sum_d dy[r, d] * rows[r, d]
/// ```
///
/// Inputs are `rows [r, d]` and `share [r, 1]` as [`Dispatch`](crate::Dispatch) sorts it. Saves
/// both for `I`. It stands with the experts and not with [`Combine`](crate::Combine), so that rows
/// which are computed again (K2 report, arXiv:2507.20534, section 2.4.3) need not be sent again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Weigh {
    /// Width of a row, `d`.
    pub width: usize,
}

fn weighed<N: Float>(rows: &Tensor, share: &Tensor, width: usize) -> Tensor {
    if let Some(gpu) = rows.gpu() {
        return routing::weighed::<N>(gpu, rows, share);
    }
    let (mut y, share) = (vec![N::ZERO; rows.len()], share.f32());
    let pairs = rows.numbers::<N>().chunks_exact(width).zip(y.chunks_exact_mut(width));
    pairs.zip(share.iter()).for_each(|((row, y), share)| scaled(row, *share, y));
    Tensor::of(rows.shape(), y)
}

fn dots<N: Float>(rows: &Tensor, dy: &Tensor, width: usize) -> Tensor {
    if let Some(gpu) = rows.gpu() {
        return routing::weighed_share::<N>(gpu, rows, dy);
    }
    let each = rows.numbers::<N>().chunks_exact(width).zip(dy.numbers::<N>().chunks_exact(width));
    Tensor::from_f32(&[rows.shape()[0], 1], each.map(|(row, dy)| dot(row, dy)).collect())
}

impl Operator for Weigh {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        let d = self.width;
        let letters = format!("rows [r, d={d}] and share [r, 1] f32");
        check("Weigh", inputs, &[Spec::rows(d), exact_rows()], letters)?;
        Ok(vec![Spec::rows(d)])
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1], &[])
    }

    fn forward(&self, at: &Context, _w: &[Tensor], x: &[Tensor]) -> Forward {
        let (rows, share) = (x[0].to(at.dtype), &x[1]);
        let y = in_format!(at.dtype, weighed(&rows, share, self.width));
        let saved = Saved { input: x.to_vec(), weight: Vec::new() };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        let [rows, dy] = [&saved[0], &dy[0]].map(|x| x.to(at.dtype));
        let share = &saved[1];
        let drows = in_format!(at.dtype, weighed(&dy, share, self.width));
        let dshare = in_format!(at.dtype, dots(&rows, &dy, self.width));
        vec![Some(drows), Some(dshare)]
    }

    fn cost(&self, r: usize, _s: usize) -> Cost {
        let elements = (r * self.width) as f64;
        Cost {
            forward_flops: elements,
            input_flops: 3.0 * elements,
            weight_flops: 0.0,
            saved_elements: elements + r as f64,
            moved_elements: 2.0 * elements,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::{check, random};

    /// Shares are exact: BF16 values in F32, so that both precisions see the same.
    fn shares(rows: usize) -> Tensor {
        let share = random(2, &[rows, 1]).f32().into_owned();
        let share = Tensor::rounded(&[rows, 1], share, crate::DType::Bf16);
        Tensor::from_f32(&[rows, 1], share.f32().into_owned())
    }

    #[test]
    fn gradients_reach_rows_and_shares() {
        check(&Weigh { width: 3 }, 2, &[random(1, &[8, 3]), shares(8)]);
    }

    #[test]
    fn no_row_is_no_row() {
        let at = Context { sequence: 1, dtype: crate::DType::F32, loss_scale: 1.0 };
        let x = [Tensor::from_f32(&[0, 3], vec![]), Tensor::from_f32(&[0, 1], vec![])];
        let forward = Weigh { width: 3 }.forward(&at, &[], &x);
        assert_eq!(forward.outputs[0].shape(), [0, 3]);
        let dy = forward.outputs.clone();
        let dx = Weigh { width: 3 }.backward_input(&at, &[], &forward.saved.input, &dy);
        assert_eq!(dx[1].as_ref().unwrap().shape(), [0, 1]);
    }
}
