//! The head and the loss, some columns of the vocabulary and some tokens at a time.

use std::ops::Range;

use kernels::{
    cuda::{
        Buffer, Float, Gpu, cross_entropy,
        products::{Matrix, MatrixMut},
    },
    gemm::Output,
};

use super::{done, floats, make, zeros};
use crate::{CrossEntropy, DType, Tensor, tensor::in_format};

/// Tokens whose logits are held at a time.
const TILE: usize = 2048;

/// What is known of each token's logits so far.
struct Sums {
    largest: Buffer<f32>,
    sums: Buffer<f32>,
    picked: Buffer<f32>,
}

/// What a forward pass makes.
pub(crate) struct Loss {
    /// Log-sum-exps, `[t]`.
    pub log_sums: Tensor,
    /// Logits of the targets, `[t]`.
    pub picked: Tensor,
    /// Gradients of the logits `[t, v]`, if the vocabulary is one chunk.
    pub dlogits: Option<Tensor>,
}

/// Calls `each` with some columns, some tokens, and their logits, `[tokens, columns]`.
fn for_each_tile(
    gpu: &Gpu,
    op: &CrossEntropy,
    w: &Tensor,
    x: &Tensor,
    mut each: impl FnMut(&Range<usize>, Range<usize>, &Buffer<f32>),
) {
    let (x, t) = (x.to(w.dtype()), x.shape()[0]);
    for columns in op.chunks() {
        let w = w.rows(columns.clone());
        for first in (0..t).step_by(TILE) {
            let tokens = first..t.min(first + TILE);
            let x = x.rows(tokens.clone());
            let mut logits = make::<f32>(gpu, tokens.len() * columns.len());
            in_format!(w.dtype(), multiplied(gpu, &x, &w, &mut logits));
            each(&columns, tokens, &logits);
        }
    }
}

fn multiplied<N: Float>(gpu: &Gpu, x: &Tensor, w: &Tensor, logits: &mut Buffer<f32>) {
    let (tokens, columns, width) = (x.shape()[0], w.shape()[0], x.shape()[1]);
    let to = MatrixMut::new(logits.view_mut(), tokens, columns);
    let x = Matrix::<N>::new(x.view(), tokens, width);
    let w = Matrix::new(w.view(), columns, width).transposed();
    done(gpu.products().product(to, Output::Write, 1.0, x, w));
}

/// The sums of all tokens, and the gradient of the logits if they are whole.
pub(crate) fn forward<N: Float>(
    gpu: &Gpu,
    op: &CrossEntropy,
    scale: f32,
    w: &Tensor,
    x: &Tensor,
    targets: &Tensor,
) -> Loss {
    let (t, stream) = (targets.len(), gpu.stream());
    let mut all = Sums {
        largest: done(gpu.up(&vec![f32::NEG_INFINITY; t])),
        sums: zeros(gpu, t),
        picked: zeros(gpu, t),
    };
    let mut dlogits = op.is_whole().then(|| make::<N>(gpu, t * op.vocab));
    for_each_tile(gpu, op, w, x, |columns, tokens, logits| {
        let (cols, targets) = (columns.len(), targets.rows(tokens.clone()));
        let largest = all.largest.view_mut().part(tokens.clone());
        let sums = all.sums.view_mut().part(tokens.clone());
        done(cross_entropy::extend(stream, logits.view(), cols, largest, sums));
        let picked = all.picked.view_mut().part(tokens.clone());
        let first = columns.start;
        done(cross_entropy::pick(stream, logits.view(), cols, first, targets.view(), picked));
        if let Some(dlogits) = &mut dlogits {
            let log_sums = finished(gpu, &all, tokens.clone());
            let to = dlogits.view_mut().part(tokens.start * cols..tokens.end * cols);
            let (logits, sums) = (logits.view(), log_sums.view());
            done(cross_entropy::gradient(stream, logits, cols, 0, sums, targets.view(), scale, to));
        }
    });
    Loss {
        log_sums: floats(gpu, &[t], finished(gpu, &all, 0..t)),
        dlogits: dlogits.map(|dlogits| floats(gpu, &[t, op.vocab], dlogits)),
        picked: floats(gpu, &[t], all.picked),
    }
}

fn finished(gpu: &Gpu, all: &Sums, tokens: Range<usize>) -> Buffer<f32> {
    let mut log_sums = make(gpu, tokens.len());
    let (largest, sums) = (all.largest.view().part(tokens.clone()), all.sums.view().part(tokens));
    done(cross_entropy::finish(gpu.stream(), largest, sums, log_sums.view_mut()));
    log_sums
}

/// The gradients of the logits of some columns, computed anew: `[t, columns]`.
pub(crate) fn chunk_gradient<N: Float>(
    gpu: &Gpu,
    op: &CrossEntropy,
    scale: f32,
    columns: &Range<usize>,
    w: &Tensor,
    saved: &[Tensor],
) -> Tensor {
    let (x, targets, log_sums) = (&saved[0], &saved[1], &saved[2]);
    let (t, cols) = (targets.len(), columns.len());
    let mut dlogits = make::<N>(gpu, t * cols);
    let chunk = CrossEntropy { vocab: cols, chunk: cols, ..op.clone() };
    for_each_tile(gpu, &chunk, w, x, |_, tokens, logits| {
        let (sums, targets) = (log_sums.rows(tokens.clone()), targets.rows(tokens.clone()));
        let to = dlogits.view_mut().part(tokens.start * cols..tokens.end * cols);
        let (sums, targets, first) = (sums.view(), targets.view(), columns.start);
        let logits = logits.view();
        done(cross_entropy::gradient(gpu.stream(), logits, cols, first, sums, targets, scale, to));
    });
    floats(gpu, &[t, cols], dlogits)
}

/// The sum over chunks of `dlogits w`, `[t, d]` in F32.
pub(crate) struct Gathered {
    dx: Buffer<f32>,
    shape: [usize; 2],
}

impl Gathered {
    /// Nothing yet.
    pub fn new(gpu: &Gpu, shape: [usize; 2]) -> Self {
        Gathered { dx: zeros(gpu, shape[0] * shape[1]), shape }
    }

    /// Adds the product of a chunk.
    pub fn add(&mut self, gpu: &Gpu, dlogits: &Tensor, w: &Tensor) {
        in_format!(w.dtype(), gather(gpu, self, &dlogits.to(w.dtype()), w));
    }

    /// Rounds it.
    pub fn finish(self, gpu: &Gpu, dtype: DType) -> Tensor {
        floats(gpu, &self.shape, self.dx).to(dtype)
    }
}

fn gather<N: Float>(gpu: &Gpu, sum: &mut Gathered, dlogits: &Tensor, w: &Tensor) {
    let [t, d] = sum.shape;
    let columns = w.shape()[0];
    let to = MatrixMut::new(sum.dx.view_mut(), t, d);
    let dlogits = Matrix::<N>::new(dlogits.view(), t, columns);
    let w = Matrix::new(w.view(), columns, d);
    done(gpu.products().product(to, Output::Add, 1.0, dlogits, w));
}
