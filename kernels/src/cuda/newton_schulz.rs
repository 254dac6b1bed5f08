//! Newton-Schulz iteration on a device; formulas in [`crate::newton_schulz`].

use super::{
    Buffer, DeviceError, Float, Gpu, Stream, View, ViewMut,
    pieces::{Kernel, Pieces, kernel},
    products::{Matrix, MatrixMut},
    program::Source,
    squares,
};
use crate::{gemm::Output, newton_schulz::COEFFICIENTS};

/// The `[rows, cols]` matrix after `steps` quintic steps, with all products in format `N`.
///
/// The norm that it is divided by stays on the device.
///
/// # Errors
///
/// [`DeviceError`] if there is no memory, or a kernel or product is refused.
///
/// # Panics
///
/// If `g` does not have `rows * cols` elements.
pub fn newton_schulz<N: Float>(
    gpu: &Gpu,
    g: View<'_, f32>,
    rows: usize,
    cols: usize,
    steps: usize,
) -> Result<Buffer<N>, DeviceError> {
    let (n, m, stream) = (rows.min(cols), rows.max(cols), gpu.stream());
    let mut x = begun::<N>(gpu, g, rows, cols)?;
    let mut next = gpu.buffer::<N>(n * m)?;
    let (mut gram, mut poly) = (gpu.buffer::<N>(n * n)?, gpu.buffer::<N>(n * n)?);
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..steps {
        let x_nm = Matrix::new(x.view(), n, m);
        let out = MatrixMut::new(gram.view_mut(), n, n);
        gpu.products().product(out, Output::Write, 1.0, x_nm, x_nm.transposed())?;
        stream.copy(gram.view(), poly.view_mut())?;
        let gram = Matrix::new(gram.view(), n, n);
        gpu.products().combined(MatrixMut::new(poly.view_mut(), n, n), b, c, gram, gram)?;
        stream.copy(x.view(), next.view_mut())?;
        let poly = Matrix::new(poly.view(), n, n);
        gpu.products().combined(MatrixMut::new(next.view_mut(), n, m), a, 1.0, poly, x_nm)?;
        std::mem::swap(&mut x, &mut next);
    }
    if rows > cols {
        transposed_back(stream, &[x.view()], n, m, &mut [next.view_mut()])?;
        return Ok(next);
    }
    Ok(x)
}

/// The matrix, lying flat, over its norm: `[n, m]`.
fn begun<N: Float>(
    gpu: &Gpu,
    g: View<'_, f32>,
    rows: usize,
    cols: usize,
) -> Result<Buffer<N>, DeviceError> {
    assert_eq!(g.len(), rows * cols, "[{rows}, {cols}]");
    let stream = gpu.stream();
    let mut parts = gpu.buffer::<f32>(squares::scratch(g.len(), cols))?;
    let mut words = gpu.buffer::<u64>(squares::RESULT)?;
    squares::of_rows(stream, &[g], cols, parts.view_mut(), words.view_mut())?;
    let mut x = gpu.buffer::<N>(g.len())?;
    if rows > cols {
        let mut flat = gpu.buffer::<f32>(g.len())?;
        transposed(stream, &[g], rows, cols, &mut [flat.view_mut()])?;
        over_norm(stream, &[flat.view()], words.view(), &mut [x.view_mut()])?;
    } else {
        over_norm(stream, &[g], words.view(), &mut [x.view_mut()])?;
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
