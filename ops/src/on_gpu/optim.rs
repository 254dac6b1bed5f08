//! The updates of weights, of several parameters of a shape at a time.

use kernels::{
    adamw::Update,
    cuda::{Buffer, Float, Gpu, View, elementwise, newton_schulz, reduce},
};

use super::{done, floats, make};
use crate::{DType, OnGpu, Tensor, tensor::in_format};

/// One step of AdamW: of each parameter the gradient, both moments and the master.
pub(crate) fn adamw(gpu: &Gpu, how: &Update, all: Vec<(&OnGpu, [&mut OnGpu; 3])>) {
    let grads: Vec<View<'_, f32>> = all.iter().map(|(grad, _)| grad.view()).collect();
    let (mut first, mut second, mut master) = (Vec::new(), Vec::new(), Vec::new());
    for (_, moved) in all {
        let [m, v, w] = moved.map(OnGpu::view_mut);
        first.push(m);
        second.push(v);
        master.push(w);
    }
    done(elementwise::adamw(gpu.stream(), how, &grads, &mut first, &mut second, &mut master));
}

/// Adds gradients to their momenta; how far these look ahead.
pub(crate) fn look_ahead(gpu: &Gpu, decay: f32, all: Vec<(&OnGpu, &mut OnGpu)>) -> Vec<OnGpu> {
    let grads: Vec<View<'_, f32>> = all.iter().map(|(grad, _)| grad.view()).collect();
    let mut ahead: Vec<Buffer<f32>> = grads.iter().map(|grad| make(gpu, grad.len())).collect();
    let mut momenta: Vec<_> = all.into_iter().map(|(_, momentum)| momentum.view_mut()).collect();
    let mut to: Vec<_> = ahead.iter_mut().map(Buffer::view_mut).collect();
    done(reduce::look_ahead(gpu.stream(), &mut momenta, decay, &grads, &mut to));
    ahead.into_iter().map(|ahead| OnGpu::of(gpu, ahead)).collect()
}

/// Newton-Schulz with products in a format, in that format, on directions of one shape.
pub(crate) fn orthogonal(
    gpu: &Gpu,
    directions: &[View<'_, f32>],
    shape: &[usize],
    steps: usize,
    dtype: DType,
) -> Vec<Tensor> {
    in_format!(dtype, orthogonal_in(gpu, directions, shape, steps))
}

/// Those that are worked on together share a buffer.
fn orthogonal_in<N: Float>(
    gpu: &Gpu,
    directions: &[View<'_, f32>],
    shape: &[usize],
    steps: usize,
) -> Vec<Tensor> {
    let (rows, columns) = (shape[0], shape[1]);
    let together = newton_schulz::newton_schulz::<N>(gpu, directions, rows, columns, steps);
    let each = |x: Buffer<N>| {
        let count = x.len() / (rows * columns).max(1);
        let all = floats(gpu, &[count * rows, columns], x);
        (0..count).map(move |which| all.rows(which * rows..(which + 1) * rows))
    };
    done(together).into_iter().flat_map(each).collect()
}

/// `master = keep * master + by * x` of several masters, each with its own `x` of one format.
pub(crate) fn turn(gpu: &Gpu, keep: f32, by: f32, all: Vec<(&Tensor, &mut OnGpu)>) {
    fn add<N: Float>(gpu: &Gpu, keep: f32, by: f32, all: Vec<(&Tensor, &mut OnGpu)>) {
        let x: Vec<View<'_, N>> = all.iter().map(|(x, _)| x.view()).collect();
        let mut masters: Vec<_> = all.into_iter().map(|(_, master)| master.view_mut()).collect();
        done(reduce::scale_and_add(gpu.stream(), &mut masters, keep, by, &x));
    }
    if let Some((x, _)) = all.first() {
        in_format!(x.dtype(), add(gpu, keep, by, all));
    }
}
