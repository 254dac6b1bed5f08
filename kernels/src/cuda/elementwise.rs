//! Kernels that go through all elements once: casts, SwiGLU, AdamW; formulas in [`crate::cast`],
//! [`crate::swiglu`], [`crate::adamw`], whose bits they have.

use half::bf16;

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::Launch,
    pieces::{Pieces, kernel},
    program::Source,
};
use crate::adamw::Update;

/// Widens; exact.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn widen(
    stream: &Stream,
    narrow: View<'_, bf16>,
    wide: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let count = narrow.len();
    assert_eq!(wide.len(), count, "elements");
    let launch = Launch::of::<f32>(stream, Source::Cast, "widen");
    launch.read(narrow).write(wide).count(count).over(count)
}

/// Rounds pieces to nearest, ties to even; infinities and NaN stay what they are.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ, of pieces as well.
pub fn nearest<N: Float>(
    stream: &Stream,
    wide: &[View<'_, f32>],
    near: &mut [ViewMut<'_, N>],
) -> Result<(), DeviceError> {
    let pieces = Pieces::read_first(wide).write(near);
    pieces.over(stream, kernel::<N>(Source::Cast, "to_nearest"), |launch, _| launch)
}

/// Rounds to BF16 as [`nearest`] does, in place.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
pub fn round(stream: &Stream, values: ViewMut<'_, f32>) -> Result<(), DeviceError> {
    let count = values.len();
    let launch = Launch::of::<f32>(stream, Source::Cast, "round_to_bf16");
    launch.write(values).count(count).over(count)
}

/// Writes `y = silu(gate) * up`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn swiglu_forward<N: Float>(
    stream: &Stream,
    gate: View<'_, N>,
    up: View<'_, N>,
    y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let count = gate.len();
    assert_eq!([up.len(), y.len()], [count; 2], "elements");
    let launch = Launch::of::<N>(stream, Source::SwiGlu, "swiglu_forward");
    launch.read(gate).read(up).write(y).count(count).over(count)
}

/// Writes `dgate = dy up s (1 + gate (1 - s))` with `s = sigmoid(gate)`, and `dup = dy gate s`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn swiglu_backward<N: Float>(
    stream: &Stream,
    gate: View<'_, N>,
    up: View<'_, N>,
    dy: View<'_, N>,
    dgate: ViewMut<'_, N>,
    dup: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let count = gate.len();
    assert_eq!([up.len(), dy.len(), dgate.len(), dup.len()], [count; 4], "elements");
    let launch = Launch::of::<N>(stream, Source::SwiGlu, "swiglu_backward");
    launch.read(gate).read(up).read(dy).write(dgate).write(dup).count(count).over(count)
}

/// Updates weights, which are the pieces, and their two moments.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ, of pieces as well.
pub fn adamw(
    stream: &Stream,
    how: &Update,
    grad: &[View<'_, f32>],
    m: &mut [ViewMut<'_, f32>],
    v: &mut [ViewMut<'_, f32>],
    w: &mut [ViewMut<'_, f32>],
) -> Result<(), DeviceError> {
    let pieces = Pieces::read_first(grad).write(m).write(v).write(w);
    let (rate, spread, keep) = how.factors();
    pieces.over(stream, kernel::<f32>(Source::AdamW, "adamw_update"), |launch, _| {
        let launch = launch.float(how.scale).float(how.betas.0).float(how.betas.1);
        launch.float(rate).float(spread).float(keep).float(how.eps)
    })
}
