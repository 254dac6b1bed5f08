//! The updates of weights.

use kernels::{
    adamw::Update,
    cuda::{Float, Gpu, View, ViewMut, elementwise, newton_schulz, reduce},
};

use super::{done, floats, make};
use crate::{DType, OnGpu, Tensor, tensor::in_format};

/// One step of AdamW.
pub(crate) fn adamw(
    gpu: &Gpu,
    how: &Update,
    grad: View<'_, f32>,
    [first, second, master]: [ViewMut<'_, f32>; 3],
) {
    done(elementwise::adamw(
        gpu.stream(),
        how,
        &[grad],
        &mut [first],
        &mut [second],
        &mut [master],
    ));
}

/// Adds a gradient to the momentum; how far it looks ahead.
pub(crate) fn look_ahead(
    gpu: &Gpu,
    momentum: ViewMut<'_, f32>,
    decay: f32,
    grad: View<'_, f32>,
) -> OnGpu {
    let mut ahead = make(gpu, grad.len());
    done(reduce::look_ahead(
        gpu.stream(),
        &mut [momentum],
        decay,
        &[grad],
        &mut [ahead.view_mut()],
    ));
    OnGpu::of(gpu, ahead)
}

/// Newton-Schulz with products in a format, in that format.
pub(crate) fn orthogonal(
    gpu: &Gpu,
    direction: View<'_, f32>,
    shape: &[usize],
    steps: usize,
    dtype: DType,
) -> Tensor {
    fn turned<N: Float>(gpu: &Gpu, g: View<'_, f32>, shape: &[usize], steps: usize) -> Tensor {
        let x = newton_schulz::newton_schulz::<N>(gpu, &[g], shape[0], shape[1], steps);
        floats(gpu, shape, done(x).remove(0))
    }
    in_format!(dtype, turned(gpu, direction, shape, steps))
}

/// `master = keep * master + by * x`.
pub(crate) fn turn(gpu: &Gpu, master: ViewMut<'_, f32>, keep: f32, by: f32, x: &Tensor) {
    fn add<N: Float>(gpu: &Gpu, master: ViewMut<'_, f32>, keep: f32, by: f32, x: &Tensor) {
        done(reduce::scale_and_add(gpu.stream(), &mut [master], keep, by, &[x.view::<N>()]));
    }
    in_format!(x.dtype(), add(gpu, master, keep, by, x));
}
