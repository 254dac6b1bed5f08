//! The order of routed rows, where the choice is.

use kernels::{
    cuda::{Float, Gpu},
    permute::Routing,
};

use crate::{Tensor, on_gpu::routing, tensor::in_format};

/// Which row each choice of a token is: rows are sorted by (expert, token).
pub(crate) enum Rows {
    Host(Routing),
    Gpu(Gpu, routing::Rows),
}

impl Rows {
    /// Those of a choice `[t, k]`.
    pub fn new(choice: &Tensor, experts: usize) -> Self {
        match choice.gpu() {
            Some(gpu) => Rows::Gpu(gpu.clone(), routing::Rows::of(gpu, choice, experts)),
            None => Rows::Host(Routing::new(choice.i32(), experts)),
        }
    }

    /// The rows of each expert, `[e]`, on the host wherever the rows are.
    pub fn counts(self) -> Tensor {
        match self {
            Rows::Host(routing) => Tensor::from_i32(&[routing.counts.len()], routing.counts),
            Rows::Gpu(gpu, rows) => rows.counts(&gpu),
        }
    }

    /// `[t, d]` to rows `[r, d]`.
    pub fn scattered(&self, x: &Tensor, per_token: usize) -> Tensor {
        in_format!(x.dtype(), scattered(self, x, per_token))
    }

    /// Rows `[r, d]` to the sums of each token's, `[t, d]`.
    pub fn gathered(&self, rows: &Tensor, per_token: usize) -> Tensor {
        in_format!(rows.dtype(), gathered(self, rows, per_token))
    }

    /// F32 numbers of choices in the order of rows, `[r, 1]`.
    pub fn sorted(&self, x: &Tensor) -> Tensor {
        match self {
            Rows::Host(routing) => {
                Tensor::from_f32(&[routing.rows.len(), 1], routing.sorted(&x.f32()))
            }
            Rows::Gpu(gpu, rows) => rows.sorted(gpu, x),
        }
    }

    /// The way back, to the shape of the choice.
    pub fn unsorted(&self, y: &Tensor, shape: &[usize]) -> Tensor {
        match self {
            Rows::Host(routing) => Tensor::from_f32(shape, routing.unsorted(&y.f32())),
            Rows::Gpu(gpu, rows) => rows.unsorted(gpu, y, shape),
        }
    }
}

fn scattered<N: Float>(rows: &Rows, x: &Tensor, per_token: usize) -> Tensor {
    match rows {
        Rows::Host(routing) => {
            let (rows, width) = (routing.rows.len(), x.shape()[1]);
            let mut y = vec![N::ZERO; rows * width];
            routing.scatter::<N>(x.numbers(), width, per_token, &mut y);
            Tensor::of(&[rows, width], y)
        }
        Rows::Gpu(gpu, places) => places.scattered::<N>(gpu, x, per_token),
    }
}

fn gathered<N: Float>(rows: &Rows, x: &Tensor, per_token: usize) -> Tensor {
    match rows {
        Rows::Host(routing) => {
            let (tokens, width) = (routing.rows.len() / per_token, x.shape()[1]);
            let mut y = vec![N::ZERO; tokens * width];
            routing.gather_sum::<N>(x.numbers(), width, &mut y);
            Tensor::of(&[tokens, width], y)
        }
        Rows::Gpu(gpu, places) => places.gathered::<N>(gpu, x, per_token),
    }
}
