//! Newton-Schulz iteration on a device; formulas in [`crate::newton_schulz`].

use super::{
    Buffer, DeviceError, Float, Gpu, Stream, View, ViewMut,
    launch::Launch,
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
        transposed_back(stream, x.view(), n, m, next.view_mut())?;
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
    squares::of_rows(stream, g, cols, parts.view_mut(), words.view_mut())?;
    let mut x = gpu.buffer::<N>(g.len())?;
    if rows > cols {
        let mut flat = gpu.buffer::<f32>(g.len())?;
        transposed(stream, g, rows, cols, flat.view_mut())?;
        over_norm(stream, flat.view(), words.view(), x.view_mut())?;
    } else {
        over_norm(stream, g, words.view(), x.view_mut())?;
    }
    Ok(x)
}

/// `x[i] = values[i] / (norm + 1e-7)`, rounded; `words` are those of [`squares::of_rows`].
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn over_norm<N: Float>(
    stream: &Stream,
    values: View<'_, f32>,
    words: View<'_, u64>,
    x: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let count = values.len();
    assert_eq!((x.len(), words.len()), (count, squares::RESULT), "elements and words");
    let launch = Launch::of::<N>(stream, Source::NewtonSchulz, "over_norm");
    launch.read(values).read(words).write(x).count(count).over(count)
}

/// Writes the transpose of `values [rows, cols]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn transposed(
    stream: &Stream,
    values: View<'_, f32>,
    rows: usize,
    cols: usize,
    out: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let launch = Launch::of::<f32>(stream, Source::NewtonSchulz, "transposed");
    turned(launch, values, rows, cols, out)
}

/// The same in the format of products.
fn transposed_back<N: Float>(
    stream: &Stream,
    values: View<'_, N>,
    rows: usize,
    cols: usize,
    out: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let launch = Launch::of::<N>(stream, Source::NewtonSchulz, "transposed_number");
    turned(launch, values, rows, cols, out)
}

fn turned<N: Float>(
    launch: Launch<'_>,
    values: View<'_, N>,
    rows: usize,
    cols: usize,
    out: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    const TILE: usize = 32;
    assert_eq!([values.len(), out.len()], [rows * cols; 2], "[{rows}, {cols}]");
    assert!(rows.div_ceil(TILE) < 65_536, "{rows} rows at once");
    let launch = launch.read(values).write(out).count(rows).count(cols);
    launch.go((cols.div_ceil(TILE), rows.div_ceil(TILE), 1), (32, 8, 1))
}
