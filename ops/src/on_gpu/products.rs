//! Matrix products; see [`kernels::cuda::products`].

use kernels::{
    cuda::{
        Buffer, Float, Gpu, ViewMut,
        grouped::{self, Blend, Extents, Sum},
        products::{Matrix, MatrixMut},
    },
    gemm::Output,
};

use super::{done, floats, make};
use crate::{DType, Tensor, tensor::in_format};

/// A tensor of two dims.
fn matrix<N: Float>(x: &Tensor) -> Matrix<'_, N> {
    Matrix::new(x.view(), x.shape()[0], x.shape()[1])
}

/// Both in one format: the one they have, or F32.
fn alike(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let dtype = if a.dtype() == b.dtype() { a.dtype() } else { DType::F32 };
    (a.to(dtype), b.to(dtype))
}

/// `x [t, i]` times `w [o, i]` turned, or times `w [i, o]`, rounded once.
pub(crate) fn product(gpu: &Gpu, x: &Tensor, w: &Tensor, turned: bool, dtype: DType) -> Tensor {
    let (x, w) = alike(x, w);
    match (x.dtype(), dtype) {
        (DType::Bf16, DType::Bf16) => written::<half::bf16, half::bf16>(gpu, &x, &w, turned),
        (DType::Bf16, _) => written::<half::bf16, f32>(gpu, &x, &w, turned),
        (_, DType::F32) => written::<f32, f32>(gpu, &x, &w, turned),
        (_, dtype) => written::<f32, f32>(gpu, &x, &w, turned).to(dtype),
    }
}

fn written<N: Float, C: Float>(gpu: &Gpu, x: &Tensor, w: &Tensor, turned: bool) -> Tensor {
    let shape = [x.shape()[0], w.shape()[usize::from(!turned)]];
    floats(gpu, &shape, buffer::<N, C>(gpu, x, w, turned))
}

fn buffer<N: Float, C: Float>(gpu: &Gpu, x: &Tensor, w: &Tensor, turned: bool) -> Buffer<C> {
    let (rows, columns) = (x.shape()[0], w.shape()[usize::from(!turned)]);
    let w = if turned { matrix::<N>(w).transposed() } else { matrix::<N>(w) };
    let mut y = make::<C>(gpu, rows * columns);
    let to = MatrixMut::new(y.view_mut(), rows, columns);
    done(gpu.products().product(to, Output::Write, 1.0, matrix::<N>(x), w));
    y
}

/// `x [t, i]` times `w [o, i]` turned, in F32 throughout.
pub(crate) fn exact(gpu: &Gpu, x: &Tensor, w: &Tensor) -> Buffer<f32> {
    buffer::<f32, f32>(gpu, &x.to(DType::F32), &w.to(DType::F32), true)
}

/// The rows of each expert times its weight `[o, i]`, turned or not: `[r, width]`.
pub(crate) fn grouped<N: Float>(
    gpu: &Gpu,
    rows: &Tensor,
    w: &[Tensor],
    counts: &[usize],
    width: usize,
    turned: bool,
) -> Tensor {
    let (count, depth) = (rows.shape()[0], rows.shape()[1]);
    let (input, output) = if turned { (depth, width) } else { (width, depth) };
    let (at, w): (_, Vec<_>) = (Extents { input, output }, w.iter().map(Tensor::view).collect());
    let mut y = make::<N>(gpu, count * width);
    let (stream, x, to) = (gpu.stream(), rows.view(), y.view_mut());
    done(match turned {
        true => grouped::forward::<N>(stream, at, x, counts, &w, Blend::SUMS, to),
        false => grouped::backward_input::<N>(stream, at, x, counts, &w, Blend::SUMS, to),
    });
    floats(gpu, &[count, width], y)
}

/// Writes or adds to each sum `a^T b` of its rows of `a [r, o]` and `b [r, i]`.
pub(crate) fn grouped_turned(gpu: &Gpu, a: &Tensor, b: &Tensor, sums: Vec<Sum<'_>>) {
    let (a, b) = alike(a, b);
    in_format!(a.dtype(), grouped_turned_as(gpu, &a, &b, sums));
}

fn grouped_turned_as<N: Float>(gpu: &Gpu, a: &Tensor, b: &Tensor, sums: Vec<Sum<'_>>) {
    let at = Extents { input: b.shape()[1], output: a.shape()[1] };
    done(grouped::backward_weight::<N>(gpu.stream(), at, a.view(), b.view(), sums));
}

/// Writes or adds `a^T b` of `a [t, o]` and `b [t, i]`.
pub(crate) fn turned(gpu: &Gpu, to: ViewMut<'_, f32>, output: Output, a: &Tensor, b: &Tensor) {
    let (a, b) = alike(a, b);
    in_format!(a.dtype(), turned_as(gpu, to, output, &a, &b));
}

fn turned_as<N: Float>(gpu: &Gpu, to: ViewMut<'_, f32>, output: Output, a: &Tensor, b: &Tensor) {
    let to = MatrixMut::new(to, a.shape()[1], b.shape()[1]);
    let (a, b) = (matrix::<N>(a).transposed(), matrix::<N>(b));
    done(gpu.products().product(to, output, 1.0, a, b));
}
