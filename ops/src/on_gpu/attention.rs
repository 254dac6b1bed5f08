//! Causal attention; see [`kernels::cuda::attention`].

use kernels::cuda::{
    Float, Gpu,
    attention::{self, Gradients, Inputs, Scratch},
};

use super::{done, floats, make};
use crate::{MlaAttention, Tensor};

fn inputs<N: Float>(x: &[Tensor]) -> Inputs<'_, N> {
    Inputs { q: x[0].view(), kv: x[1].view(), k_rope: x[2].view() }
}

/// The output, the log-sum-exps and the largest softmax inputs `[h]`.
pub(crate) fn forward<N: Float>(
    gpu: &Gpu,
    op: &MlaAttention,
    s: usize,
    x: &[Tensor],
) -> [Tensor; 3] {
    let (t, heads) = (x[0].shape()[0], op.extents());
    let turns = done(gpu.turns(op.key(s), || op.rotation(0, s)));
    let mut y = make::<N>(gpu, t * op.heads * op.value);
    let [mut log_sums, mut of_rows] = [(); 2].map(|()| make::<f32>(gpu, t * op.heads));
    let (mut largest, mut turned) = (make::<f32>(gpu, op.heads), make::<N>(gpu, t * op.rope));
    let (to, sums, most) = (y.view_mut(), log_sums.view_mut(), largest.view_mut());
    let (stream, turns, x) = (gpu.stream(), turns.view(), inputs::<N>(x));
    let (turned, rows) = (turned.view_mut(), of_rows.view_mut());
    done(attention::forward(stream, &heads, turns, s, x, turned, to, sums, rows, most));
    [
        floats(gpu, &[t, op.heads * op.value], y),
        floats(gpu, &[t, op.heads], log_sums),
        floats(gpu, &[op.heads], largest),
    ]
}

/// The gradients of the three inputs.
pub(crate) fn backward<N: Float>(
    gpu: &Gpu,
    op: &MlaAttention,
    s: usize,
    x: &[Tensor],
    log_sums: &Tensor,
    y: &Tensor,
    dy: &Tensor,
) -> Vec<Option<Tensor>> {
    let (t, heads) = (x[0].shape()[0], op.extents());
    let turns = done(gpu.turns(op.key(s), || op.rotation(0, s)));
    let [mut q, mut kv, mut k_rope] = [0, 1, 2].map(|which| make::<N>(gpu, x[which].len()));
    let mut along = make(gpu, t * op.heads);
    let mut of_heads = make(gpu, t * op.heads * op.rope);
    let scratch = Scratch { along: along.view_mut(), k_rope: of_heads.view_mut() };
    let dx = Gradients { q: q.view_mut(), kv: kv.view_mut(), k_rope: k_rope.view_mut() };
    let (stream, turns, from) = (gpu.stream(), turns.view(), inputs::<N>(x));
    let (sums, y, dy) = (log_sums.view(), Some(y.view()), dy.view());
    done(attention::backward(stream, &heads, turns, s, from, sums, y, dy, scratch, dx));
    let gradients = [q, kv, k_rope].into_iter().zip(x);
    gradients.map(|(dx, x)| Some(floats(gpu, x.shape(), dx))).collect()
}
