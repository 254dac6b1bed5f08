//! RMSNorm on a device; formulas in [`crate::rms_norm`].

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::{Launch, THREADS},
    program::Source,
};

/// Tokens of a part of the gain's gradient, as in `rms_norm.cu`.
const TOKENS_OF_A_PART: usize = 64;

/// Elements of F32 that [`backward_weight`] needs beside its arguments.
pub fn scratch(tokens: usize, width: usize) -> usize {
    tokens.div_ceil(TOKENS_OF_A_PART) * width
}

/// Writes `y` and the inverse divisor of each token; the width is that of `w`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn forward<N: Float>(
    stream: &Stream,
    x: View<'_, N>,
    w: View<'_, f32>,
    eps: f32,
    y: ViewMut<'_, N>,
    rstd: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let (rows, width) = (rstd.len(), w.len());
    assert_eq!((x.len(), y.len()), (rows * width, rows * width), "[{rows}, {width}]");
    let launch = Launch::of::<N>(stream, Source::RmsNorm, "rms_norm_forward");
    let launch = launch.read(x).read(w).float(eps).write(y).write(rstd).count(width);
    launch.rows(rows, width)
}

/// Writes `dx = rstd * (w dy - x rstd^2 mean_d(w dy x))`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn backward_input<N: Float>(
    stream: &Stream,
    x: View<'_, N>,
    w: View<'_, f32>,
    rstd: View<'_, f32>,
    dy: View<'_, N>,
    dx: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let (rows, width) = (rstd.len(), w.len());
    let all = rows * width;
    assert_eq!([x.len(), dy.len(), dx.len()], [all; 3], "[{rows}, {width}]");
    let launch = Launch::of::<N>(stream, Source::RmsNorm, "rms_norm_backward_input");
    let launch = launch.read(x).read(w).read(rstd).read(dy).write(dx).count(width);
    launch.rows(rows, width)
}

/// Adds `sum_t dy x rstd` to `dw`: 64 tokens in order, then these sums in order.
///
/// `parts` has [`scratch`] elements, whose content is lost.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn backward_weight<N: Float>(
    stream: &Stream,
    x: View<'_, N>,
    rstd: View<'_, f32>,
    dy: View<'_, N>,
    mut parts: ViewMut<'_, f32>,
    dw: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let (rows, width) = (rstd.len(), dw.len());
    assert_eq!([x.len(), dy.len()], [rows * width; 2], "[{rows}, {width}]");
    assert_eq!(parts.len(), scratch(rows, width), "parts of [{rows}, {width}]");
    let count = rows.div_ceil(TOKENS_OF_A_PART);
    let launch = Launch::of::<N>(stream, Source::RmsNorm, "rms_norm_weight_parts");
    let launch = launch.read(x).read(rstd).read(dy).write(parts.again()).count(rows).count(width);
    let columns = width.div_ceil(8 * THREADS as usize);
    // Parts lie along y, of which a grid has 65,535.
    assert!(count < 65_536, "{rows} tokens at once");
    launch.go((columns, count, 1), (THREADS, 1, 1))?;
    let launch = Launch::of::<N>(stream, Source::RmsNorm, "rms_norm_weight_join");
    launch.read(parts.view()).write(dw).count(count).count(width).each(width)
}
