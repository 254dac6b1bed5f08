//! Newton-Schulz iteration on a device; formulas in [`crate::newton_schulz`].
//!
//! Several matrices of one shape go together: an expert layer has hundreds, whose products alone
//! are a few tiles each, and a launch takes the host longer than the device. What is multiplied how
//! follows from the shape, never from how many there are, so a matrix has the bits that it has
//! alone.

use super::{
    Buffer, DeviceError, Float, Gpu, PIECES, Stream, View, ViewMut,
    grouped::{self, Blend, Extents},
    pieces::{Kernel, Pieces, cut, cut_mut, kernel},
    products::{Matrix, MatrixMut},
    program::Source,
    squares,
};
use crate::{gemm::Output, newton_schulz::COEFFICIENTS};

/// Elements of the largest matrix whose products are [`grouped`]: one of 2,048 x 2,048 has a tile
/// for each multiprocessor of an H100, so a larger one has no need of company, and cuBLASLt knows
/// more kernels than we.
const GROUPED: usize = 4 << 20;

/// Elements of all matrices that are worked on at a time, unless one alone has more.
const ELEMENTS: usize = 64 << 20;

/// How many matrices of so many elements are worked on at a time, at most: this bounds the memory
/// that it takes.
pub fn at_once(elements: usize) -> usize {
    (ELEMENTS / elements.max(1)).clamp(1, PIECES)
}

/// The `[rows, cols]` matrices after `steps` quintic steps, with all products in format `N`: in
/// each buffer as many as are worked on [`at_once`], one behind the other.
///
/// The norms that they are divided by stay on the device.
///
/// # Errors
///
/// [`DeviceError`] if there is no memory, or a kernel or product is refused.
///
/// # Panics
///
/// If one does not have `rows * cols` elements.
pub fn newton_schulz<N: Float>(
    gpu: &Gpu,
    all: &[View<'_, f32>],
    rows: usize,
    cols: usize,
    steps: usize,
) -> Result<Vec<Buffer<N>>, DeviceError> {
    let together = all.chunks(at_once(rows * cols));
    together.map(|some| stacked(gpu, some, rows, cols, steps)).collect()
}

/// The same of matrices that are worked on together.
fn stacked<N: Float>(
    gpu: &Gpu,
    all: &[View<'_, f32>],
    rows: usize,
    cols: usize,
    steps: usize,
) -> Result<Buffer<N>, DeviceError> {
    let stack = Stack { count: all.len(), n: rows.min(cols), m: rows.max(cols) };
    let Stack { count, n, m } = stack;
    let mut x = begun::<N>(gpu, all, rows, cols)?;
    let mut next = gpu.buffer(x.len())?;
    let (mut gram, mut poly) = (gpu.buffer(count * n * n)?, gpu.buffer(count * n * n)?);
    for _ in 0..steps {
        let (to_gram, to_poly) = (gram.view_mut(), poly.view_mut());
        match n * m <= GROUPED {
            true => stack.grouped_step(gpu, x.view(), to_gram, to_poly, next.view_mut())?,
            false => stack.dense_step(gpu, x.view(), to_gram, to_poly, next.view_mut())?,
        }
        std::mem::swap(&mut x, &mut next);
    }
    if rows > cols {
        let (flat, tall) = (cut(x.view(), n * m), &mut cut_mut(next.view_mut(), n * m));
        transposed_back(gpu.stream(), &flat, n, m, tall)?;
        return Ok(next);
    }
    Ok(x)
}

/// Matrices `[n, m]`, lying flat, one behind the other.
#[derive(Clone, Copy)]
struct Stack {
    count: usize,
    n: usize,
    m: usize,
}

impl Stack {
    /// One step with three launches for all; nothing is copied, as products can add what stands
    /// elsewhere.
    fn grouped_step<N: Float>(
        self,
        gpu: &Gpu,
        x: View<'_, N>,
        mut gram: ViewMut<'_, N>,
        mut poly: ViewMut<'_, N>,
        next: ViewMut<'_, N>,
    ) -> Result<(), DeviceError> {
        let Stack { count, n, m } = self;
        let ((a, b, c), s, counts) = (COEFFICIENTS, gpu.stream(), vec![n; count]);
        let (flat, square) = (Extents { input: m, output: n }, Extents { input: n, output: n });
        let each = cut(x, n * m);
        grouped::forward(s, flat, x, &counts, &each, Blend::SUMS, gram.again())?;
        // The Gram matrix is its own transpose.
        let (gram, blend) = (gram.view(), Blend { by: c, base: Some((b, gram.view())) });
        grouped::forward(s, square, gram, &counts, &cut(gram, n * n), blend, poly.again())?;
        let blend = Blend { by: 1.0, base: Some((a, x)) };
        grouped::backward_input(s, flat, poly.view(), &counts, &each, blend, next)
    }

    /// One step with dense products, matrix after matrix.
    fn dense_step<N: Float>(
        self,
        gpu: &Gpu,
        x: View<'_, N>,
        mut gram: ViewMut<'_, N>,
        mut poly: ViewMut<'_, N>,
        mut next: ViewMut<'_, N>,
    ) -> Result<(), DeviceError> {
        let Stack { n, m, .. } = self;
        let ((a, b, c), products) = (COEFFICIENTS, gpu.products());
        for (x, to) in cut(x, n * m).into_iter().zip(cut_mut(gram.again(), n * n)) {
            let x = Matrix::new(x, n, m);
            let to = MatrixMut::new(to, n, n);
            products.product(to, Output::Write, 1.0, x, x.transposed())?;
        }
        gpu.stream().copy(gram.view(), poly.again())?;
        for (gram, to) in cut(gram.view(), n * n).into_iter().zip(cut_mut(poly.again(), n * n)) {
            let gram = Matrix::new(gram, n, n);
            products.combined(MatrixMut::new(to, n, n), b, c, gram, gram)?;
        }
        gpu.stream().copy(x, next.again())?;
        let factors = cut(poly.view(), n * n).into_iter().zip(cut(x, n * m));
        for ((poly, x), to) in factors.zip(cut_mut(next, n * m)) {
            let (poly, x) = (Matrix::new(poly, n, n), Matrix::new(x, n, m));
            products.combined(MatrixMut::new(to, n, m), a, 1.0, poly, x)?;
        }
        Ok(())
    }
}

/// The matrices, lying flat, over their norms: `[n, m]` each.
fn begun<N: Float>(
    gpu: &Gpu,
    all: &[View<'_, f32>],
    rows: usize,
    cols: usize,
) -> Result<Buffer<N>, DeviceError> {
    let (stream, count, size) = (gpu.stream(), all.len(), rows * cols);
    assert!(all.iter().all(|g| g.len() == size), "[{rows}, {cols}]");
    let mut parts = gpu.buffer::<f32>(count * squares::scratch(size, cols))?;
    let mut words = gpu.buffer::<u64>(count * squares::RESULT)?;
    squares::of_rows(stream, all, cols, parts.view_mut(), words.view_mut())?;
    let mut x = gpu.buffer::<N>(count * size)?;
    let to = &mut cut_mut(x.view_mut(), size);
    if rows > cols {
        let mut flat = gpu.buffer::<f32>(count * size)?;
        transposed(stream, all, rows, cols, &mut cut_mut(flat.view_mut(), size))?;
        over_norm(stream, &cut(flat.view(), size), words.view(), to)?;
    } else {
        over_norm(stream, all, words.view(), to)?;
    }
    Ok(x)
}

/// `x[i] = values[i] / (norm + 1e-7)` in each piece, rounded; `words` are those of
/// [`squares::of_rows`].
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other, those of pieces as well.
pub fn over_norm<N: Float>(
    stream: &Stream,
    values: &[View<'_, f32>],
    words: View<'_, u64>,
    x: &mut [ViewMut<'_, N>],
) -> Result<(), DeviceError> {
    assert_eq!(words.len(), values.len() * squares::RESULT, "words of all pieces");
    let pieces = Pieces::read_first(values).write(x);
    let kernel = kernel::<N>(Source::NewtonSchulz, "over_norm");
    pieces.over(stream, kernel, |launch, pieces| {
        launch.read(words.part(pieces.start * squares::RESULT..pieces.end * squares::RESULT))
    })
}

/// Writes the transposes of pieces `[rows, cols]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other, those of pieces as well.
pub fn transposed(
    stream: &Stream,
    values: &[View<'_, f32>],
    rows: usize,
    cols: usize,
    out: &mut [ViewMut<'_, f32>],
) -> Result<(), DeviceError> {
    turned(stream, kernel::<f32>(Source::NewtonSchulz, "transposed"), values, rows, cols, out)
}

/// The same in the format of products.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other, those of pieces as well.
pub fn transposed_back<N: Float>(
    stream: &Stream,
    values: &[View<'_, N>],
    rows: usize,
    cols: usize,
    out: &mut [ViewMut<'_, N>],
) -> Result<(), DeviceError> {
    turned(stream, kernel::<N>(Source::NewtonSchulz, "transposed_number"), values, rows, cols, out)
}

fn turned<N>(
    stream: &Stream,
    kernel: Kernel,
    values: &[View<'_, N>],
    rows: usize,
    cols: usize,
    out: &mut [ViewMut<'_, N>],
) -> Result<(), DeviceError> {
    const TILE: usize = 32;
    assert!(rows.div_ceil(TILE) < 65_536, "{rows} rows at once");
    let pieces = Pieces::new(values.len(), rows * cols).read(values).write(out);
    pieces.launches(stream, kernel, |launch, pieces| {
        let grid = (cols.div_ceil(TILE), rows.div_ceil(TILE), pieces.len());
        launch.count(rows).count(cols).go(grid, (32, 8, 1))
    })
}
