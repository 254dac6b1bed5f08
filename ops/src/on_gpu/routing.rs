//! The router, and the way of rows to experts and back.

use kernels::cuda::{Buffer, Float, Gpu, permute, router};

use super::{done, floats, indices, make, products::exact, zeros};
use crate::{DType, Router, Tensor};

/// What a router's forward pass makes.
pub(crate) struct Routed {
    /// `[t, k]`.
    pub choice: Tensor,
    /// Scores of the chosen, `[t, k]`.
    pub chosen: Tensor,
    /// `[t, k]`.
    pub share: Tensor,
    /// Tokens of each expert, `[e]`.
    pub load: Tensor,
}

/// Chooses experts and shares for each token.
pub(crate) fn routed(gpu: &Gpu, op: &Router, x: &Tensor, w: &[Tensor]) -> Routed {
    let (e, k, t) = (op.experts, op.experts_per_token, x.shape()[0]);
    let stream = gpu.stream();
    let mut scores = exact(gpu, x, &w[0]);
    done(router::scores(stream, scores.view_mut()));
    let mut choice = make::<i32>(gpu, t * k);
    done(router::choose(stream, &op.choice(), scores.view(), w[1].view(), choice.view_mut()));
    let [mut chosen, mut share] = [(); 2].map(|()| make::<f32>(gpu, t * k));
    let (to_chosen, to_share) = (chosen.view_mut(), share.view_mut());
    let (from, choices) = (scores.view(), choice.view());
    done(router::shares(stream, e, k, op.scaling, from, choices, to_chosen, to_share));
    let choice = indices(gpu, &[t, k], choice);
    let load = Rows::of(gpu, &choice, e).counts;
    Routed {
        choice,
        chosen: floats(gpu, &[t, k], chosen),
        share: floats(gpu, &[t, k], share),
        load: indices(gpu, &[e], load),
    }
}

/// The gradient of the logits `[t, e]`.
pub(crate) fn logits(
    gpu: &Gpu,
    op: &Router,
    choice: &Tensor,
    chosen: &Tensor,
    dshare: &Tensor,
) -> Tensor {
    let (e, k, t) = (op.experts, op.experts_per_token, choice.shape()[0]);
    let mut dlogits = zeros::<f32>(gpu, t * e);
    let (stream, dshare, to) = (gpu.stream(), dshare.to(DType::F32), dlogits.view_mut());
    let (choice, chosen, dshare) = (choice.view(), chosen.view(), dshare.view());
    done(router::backward(stream, e, k, op.scaling, choice, chosen, dshare, to));
    floats(gpu, &[t, e], dlogits)
}

/// The row of each choice, sorted by (expert, token), and the rows of each expert.
pub(crate) struct Rows {
    rows: Buffer<i32>,
    counts: Buffer<i32>,
}

impl Rows {
    /// Those of a choice `[t, k]`.
    pub fn of(gpu: &Gpu, choice: &Tensor, experts: usize) -> Self {
        let (mut rows, mut counts) = (make(gpu, choice.len()), make(gpu, experts));
        let (to, each) = (rows.view_mut(), counts.view_mut());
        done(permute::routing(gpu.stream(), choice.view(), to, each));
        Rows { rows, counts }
    }

    /// The rows of each expert, on the host, which has to know how many go where: the one place in
    /// a step where it waits for the device.
    pub fn counts(&self, gpu: &Gpu) -> Tensor {
        let counts = done(gpu.down(self.counts.view()));
        Tensor::from_i32(&[counts.len()], counts)
    }

    /// `[t, d]` to rows.
    pub fn scattered<N: Float>(&self, gpu: &Gpu, x: &Tensor, per_token: usize) -> Tensor {
        let (rows, width) = (self.rows.len(), x.shape()[1]);
        let mut y = make::<N>(gpu, rows * width);
        let (places, to) = (self.rows.view(), y.view_mut());
        done(permute::scatter(gpu.stream(), places, x.view(), width, per_token, to));
        floats(gpu, &[rows, width], y)
    }

    /// The sum of the rows of each token.
    pub fn gathered<N: Float>(&self, gpu: &Gpu, rows: &Tensor, per_token: usize) -> Tensor {
        let (tokens, width) = (self.rows.len() / per_token, rows.shape()[1]);
        let mut y = make::<N>(gpu, tokens * width);
        let (places, to) = (self.rows.view(), y.view_mut());
        done(permute::gather_sum(gpu.stream(), places, rows.view(), width, per_token, to));
        floats(gpu, &[tokens, width], y)
    }

    /// Numbers of choices in the order of rows, `[r, 1]`.
    pub fn sorted(&self, gpu: &Gpu, x: &Tensor) -> Tensor {
        let (x, mut y) = (x.to(DType::F32), make(gpu, self.rows.len()));
        done(permute::sorted(gpu.stream(), self.rows.view(), x.view(), y.view_mut()));
        floats(gpu, &[self.rows.len(), 1], y)
    }

    /// The way back, to the shape of the choice.
    pub fn unsorted(&self, gpu: &Gpu, y: &Tensor, shape: &[usize]) -> Tensor {
        let (y, mut x) = (y.to(DType::F32), make(gpu, self.rows.len()));
        done(permute::unsorted(gpu.stream(), self.rows.view(), y.view(), x.view_mut()));
        floats(gpu, shape, x)
    }
}

/// Rows times their shares.
pub(crate) fn weighed<N: Float>(gpu: &Gpu, rows: &Tensor, share: &Tensor) -> Tensor {
    let (mut y, share) = (make::<N>(gpu, rows.len()), share.to(DType::F32));
    let (width, to) = (rows.shape()[1], y.view_mut());
    done(permute::weigh(gpu.stream(), rows.view(), share.view(), width, to));
    floats(gpu, rows.shape(), y)
}

/// The gradients of the shares, `[r, 1]`.
pub(crate) fn weighed_share<N: Float>(gpu: &Gpu, rows: &Tensor, dy: &Tensor) -> Tensor {
    let (count, width) = (rows.shape()[0], rows.shape()[1]);
    let mut dshare = make::<f32>(gpu, count);
    let to = dshare.view_mut();
    done(permute::weigh_share(gpu.stream(), rows.view::<N>(), dy.view(), width, to));
    floats(gpu, &[count, 1], dshare)
}
