//! FP8 storage on a device; formulas and limits in [`crate::fp8`], whose bits it has.

use super::{DeviceError, Float, Stream, View, ViewMut, launch::Launch, program::Source};
use crate::fp8::tiles;

/// Writes the codes and scales of `x [rows, width]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn encode<N: Float>(
    stream: &Stream,
    x: View<'_, N>,
    width: usize,
    codes: ViewMut<'_, u8>,
    scales: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let rows = x.len().checked_div(width).unwrap_or(0);
    assert_eq!([x.len(), codes.len()], [rows * width; 2], "elements of whole rows");
    assert_eq!(scales.len(), rows * tiles(width), "scales");
    let launch = Launch::of::<N>(stream, Source::Fp8, "fp8_encode");
    launch.read(x).count(width).write(codes).write(scales).rows(rows, width)
}

/// Writes `x[r, c] = value(codes[r, c]) * scales[r, c / 128]`, rounded once.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn decode<N: Float>(
    stream: &Stream,
    codes: View<'_, u8>,
    scales: View<'_, f32>,
    width: usize,
    x: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let rows = x.len().checked_div(width).unwrap_or(0);
    assert_eq!([x.len(), codes.len()], [rows * width; 2], "elements of whole rows");
    assert_eq!(scales.len(), rows * tiles(width), "scales");
    let launch = Launch::of::<N>(stream, Source::Fp8, "fp8_decode");
    launch.read(codes).read(scales).count(width).write(x).rows(rows, width)
}
