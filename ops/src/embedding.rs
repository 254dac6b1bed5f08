//! Token embedding: one row of the weight for each token.

use kernels::{cuda::Float, embedding};
use serde::{Deserialize, Serialize};

use crate::{
    Context, Cost, Floats, Forward, Init, Keeps, Operator, Rule, Saved, ShapeError, Spec, Tensor,
    WeightSpec,
    linear::default_init_std,
    on_gpu::rows::{embedded, embedded_weight},
    shape::{check, token_index},
    tensor::in_format,
};

/// Looks up one row of the weight for each token.
///
/// ```text
/// y[t, d] = w[token[t], d]
/// ```
///
/// Saves the tokens for `W`; tokens have no gradient.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Number of different tokens, `v`.
    pub vocab: usize,
    /// Width of one token, `d`.
    pub width: usize,
    /// Standard deviation of the weight before the first step.
    #[serde(default = "default_init_std")]
    pub init_std: f32,
}

impl Operator for Embedding {
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError> {
        check("Embedding", inputs, &[token_index(None)], "tokens [t] i32".into())?;
        Ok(vec![Spec::tokens(self.width)])
    }

    fn weights(&self) -> Vec<WeightSpec> {
        vec![WeightSpec {
            name: "weight",
            expert: None,
            shape: vec![self.vocab, self.width],
            init: Init::Normal(self.init_std),
            rule: Rule::AdamW,
            exact: false,
        }]
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[], &[0])
    }

    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward {
        let y = match x[0].gpu() {
            Some(gpu) => in_format!(w[0].dtype(), embedded(gpu, &w[0], &x[0])),
            None => looked_up(&w[0], x[0].i32(), self.width),
        };
        let y = y.to(at.dtype);
        let saved = Saved { input: Vec::new(), weight: vec![x[0].clone()] };
        Forward { outputs: vec![y], saved, observed: None }
    }

    fn backward_input(
        &self,
        _at: &Context,
        _w: &[Tensor],
        _saved: &[Tensor],
        _dy: &[Tensor],
    ) -> Vec<Option<Tensor>> {
        vec![None]
    }

    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
        dw: &mut [Floats],
    ) {
        dw[0].fill_up(self.vocab * self.width);
        in_format!(dy[0].dtype(), scattered(&saved[0], &dy[0], &mut dw[0]));
    }

    fn cost(&self, t: usize, _s: usize) -> Cost {
        let elements = (t * self.width) as f64;
        Cost {
            weight_flops: elements,
            saved_elements: t as f64,
            moved_elements: 2.0 * elements,
            ..Cost::default()
        }
    }
}

fn looked_up(w: &Tensor, tokens: &[i32], width: usize) -> Tensor {
    let row = width * w.dtype().size();
    let mut bytes = vec![0; tokens.len() * row];
    embedding::gather(w.bytes(), row, tokens, &mut bytes);
    Tensor::from_bytes(&[tokens.len(), width], w.dtype(), bytes.into())
}

fn scattered<N: Float>(tokens: &Tensor, dy: &Tensor, dw: &mut Floats) {
    match dw {
        Floats::Host(dw) => {
            embedding::scatter_add::<N>(dw, dy.shape()[1], tokens.i32(), dy.numbers());
        }
        Floats::Gpu(dw) => {
            let gpu = dw.gpu().clone();
            embedded_weight::<N>(&gpu, dw.view_mut(), tokens, dy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_check::check;

    #[test]
    fn gradients_go_to_the_rows_that_were_read() {
        let tokens = Tensor::from_i32(&[6], vec![3, 0, 3, 1, 3, 0]);
        check(&Embedding { vocab: 5, width: 3, init_std: 1.0 }, 3, &[tokens]);
    }
}
