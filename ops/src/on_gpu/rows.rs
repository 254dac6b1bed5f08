//! What goes through tokens or elements once: casts, sums, norms, SwiGLU, columns, the embedding.

use half::bf16;
use kernels::cuda::{
    Buffer, Float, Gpu, View, ViewMut, elementwise, embedding, fp8, reduce, rms_norm,
};

use super::{done, floats, make};
use crate::{DType, Tensor, stored::scales_of};

/// The same values in another format.
pub(crate) fn cast(gpu: &Gpu, x: &Tensor, dtype: DType) -> Tensor {
    match (x.dtype(), dtype) {
        (DType::F32, DType::Bf16) => nearest::<bf16>(gpu, x.shape(), &[x.view()]).remove(0),
        (DType::Bf16, DType::F32) => {
            let mut y = make::<f32>(gpu, x.len());
            done(elementwise::widen(gpu.stream(), x.view(), y.view_mut()));
            floats(gpu, x.shape(), y)
        }
        (from, to) => panic!("{from:?} is not made {to:?}"),
    }
}

/// Values of one shape, each rounded to a format.
pub(crate) fn nearest<N: Float>(gpu: &Gpu, shape: &[usize], all: &[View<'_, f32>]) -> Vec<Tensor> {
    let mut near: Vec<Buffer<N>> = all.iter().map(|x| make(gpu, x.len())).collect();
    let mut to: Vec<_> = near.iter_mut().map(Buffer::view_mut).collect();
    done(elementwise::nearest(gpu.stream(), all, &mut to));
    near.into_iter().map(|y| floats(gpu, shape, y)).collect()
}

/// The sum of tensors of one shape, in their order.
pub(crate) fn sums<N: Float>(gpu: &Gpu, all: &[Tensor]) -> Tensor {
    let views: Vec<_> = all.iter().map(Tensor::view::<N>).collect();
    let mut y = make::<N>(gpu, all[0].len());
    done(reduce::sums(gpu.stream(), &views, y.view_mut()));
    floats(gpu, all[0].shape(), y)
}

/// The output and the inverse divisor of each token.
pub(crate) fn norm<N: Float>(gpu: &Gpu, x: &Tensor, w: &Tensor, eps: f32) -> (Tensor, Tensor) {
    let tokens = x.shape()[0];
    let (mut y, mut rstd) = (make::<N>(gpu, x.len()), make::<f32>(gpu, tokens));
    let (to, divisors) = (y.view_mut(), rstd.view_mut());
    done(rms_norm::forward(gpu.stream(), x.view::<N>(), w.view(), eps, to, divisors));
    (floats(gpu, x.shape(), y), floats(gpu, &[tokens], rstd))
}

/// The gradient of the input of a norm.
pub(crate) fn norm_input<N: Float>(
    gpu: &Gpu,
    x: &Tensor,
    w: &Tensor,
    rstd: &Tensor,
    dy: &Tensor,
) -> Tensor {
    let (mut dx, stream) = (make::<N>(gpu, x.len()), gpu.stream());
    let (x_td, dy) = (x.view::<N>(), dy.view());
    done(rms_norm::backward_input(stream, x_td, w.view(), rstd.view(), dy, dx.view_mut()));
    floats(gpu, x.shape(), dx)
}

/// Adds the gradient of the gains of a norm.
pub(crate) fn norm_weight<N: Float>(
    gpu: &Gpu,
    x: &Tensor,
    rstd: &Tensor,
    dy: &Tensor,
    dw: ViewMut<'_, f32>,
) {
    let mut scratch = make(gpu, rms_norm::scratch(x.shape()[0], x.shape()[1]));
    let (x_td, rstd, dy) = (x.view::<N>(), rstd.view(), dy.view());
    done(rms_norm::backward_weight(gpu.stream(), x_td, rstd, dy, scratch.view_mut(), dw));
}

/// `silu(gate) * up`.
pub(crate) fn swiglu<N: Float>(gpu: &Gpu, gate: &Tensor, up: &Tensor) -> Tensor {
    let mut y = make::<N>(gpu, gate.len());
    done(elementwise::swiglu_forward(gpu.stream(), gate.view(), up.view(), y.view_mut()));
    floats(gpu, gate.shape(), y)
}

/// The gradients of gate and up.
pub(crate) fn swiglu_input<N: Float>(
    gpu: &Gpu,
    gate: &Tensor,
    up: &Tensor,
    dy: &Tensor,
) -> [Tensor; 2] {
    let [mut dgate, mut dup] = [(); 2].map(|()| make::<N>(gpu, gate.len()));
    let (g, u, to_gate, to_up) = (gate.view(), up.view(), dgate.view_mut(), dup.view_mut());
    done(elementwise::swiglu_backward(gpu.stream(), g, u, dy.view(), to_gate, to_up));
    [dgate, dup].map(|dx| floats(gpu, gate.shape(), dx))
}

/// Columns cut into tensors of the given widths.
pub(crate) fn cut<N: Float>(gpu: &Gpu, widths: &[usize], x: &Tensor) -> Vec<Tensor> {
    let (t, width) = (x.shape()[0], x.shape()[1]);
    let mut from = 0;
    let part = |&own: &usize| {
        let mut y = make::<N>(gpu, t * own);
        done(reduce::split(gpu.stream(), x.view(), width, from, own, y.view_mut()));
        from += own;
        floats(gpu, &[t, own], y)
    };
    widths.iter().map(part).collect()
}

/// Columns put side by side: `[t, width]`.
pub(crate) fn joined<N: Float>(gpu: &Gpu, parts: &[Tensor], width: usize) -> Tensor {
    let t = parts[0].shape()[0];
    let (mut whole, mut from) = (make::<N>(gpu, t * width), 0);
    for part in parts {
        let own = part.shape()[1];
        done(reduce::join(gpu.stream(), whole.view_mut(), width, from, own, part.view()));
        from += own;
    }
    floats(gpu, &[t, width], whole)
}

/// Pieces one behind the other, of a shape and format.
pub(crate) fn concatenated(gpu: &Gpu, shape: &[usize], pieces: &[Tensor]) -> Tensor {
    let size = pieces.iter().map(Tensor::byte_len).sum();
    let (mut whole, mut from) = (make::<u8>(gpu, size), 0);
    for piece in pieces {
        let end = from + piece.byte_len();
        done(gpu.stream().copy(piece.raw(), whole.view_mut().part(from..end)));
        from = end;
    }
    super::tensor(gpu, shape, pieces[0].dtype(), whole)
}

/// One row of the table for each token.
pub(crate) fn embedded<N: Float>(gpu: &Gpu, w: &Tensor, tokens: &Tensor) -> Tensor {
    let shape = [tokens.len(), w.shape()[1]];
    let mut y = make::<N>(gpu, shape[0] * shape[1]);
    let (table, to) = (w.view::<N>(), y.view_mut());
    done(embedding::gather(gpu.stream(), table, shape[1], tokens.view(), to));
    floats(gpu, &shape, y)
}

/// Adds the gradients of the rows that tokens read.
pub(crate) fn embedded_weight<N: Float>(
    gpu: &Gpu,
    dw: ViewMut<'_, f32>,
    tokens: &Tensor,
    dy: &Tensor,
) {
    let width = dy.shape()[1];
    done(embedding::scatter_add(gpu.stream(), dw, width, tokens.view(), dy.view::<N>()));
}

/// Scales, then codes in FP8, as [`Stored`](crate::Stored) lays them out.
pub(crate) fn encode<N: Float>(gpu: &Gpu, x: &Tensor, bytes: usize) -> Tensor {
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let mut all = make::<u8>(gpu, bytes);
    let (scales, codes) = all.view_mut().split_at(scales_of(rows, width));
    done(fp8::encode(gpu.stream(), x.view::<N>(), width, codes, scales.cast()));
    super::tensor(gpu, &[bytes], DType::I32, all)
}

/// What was stored, in the format that it had.
pub(crate) fn decode<N: Float>(gpu: &Gpu, all: &Tensor, [rows, width]: [usize; 2]) -> Tensor {
    let (scales, codes) = (scales_of(rows, width), all.raw());
    let (scales, codes) = (codes.part(0..scales), codes.part(scales..codes.len()));
    let mut x = make::<N>(gpu, rows * width);
    done(fp8::decode(gpu.stream(), codes, scales.cast(), width, x.view_mut()));
    floats(gpu, &[rows, width], x)
}
