//! Kernels that go through all elements once: casts, SwiGLU, AdamW; formulas in [`crate::cast`],
//! [`crate::swiglu`], [`crate::adamw`], whose bits they have.

use half::bf16;

use super::{DeviceError, Float, Stream, View, ViewMut, launch::Launch, program::Source};
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

/// Rounds to nearest, ties to even; infinities and NaN stay what they are.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn narrow(
    stream: &Stream,
    wide: View<'_, f32>,
    narrow: ViewMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let count = wide.len();
    assert_eq!(narrow.len(), count, "elements");
    let launch = Launch::of::<f32>(stream, Source::Cast, "narrow");
    launch.read(wide).write(narrow).count(count).over(count)
}

/// Rounds as [`narrow`] does, in place.
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

/// Updates a weight and its two moments.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn adamw(
    stream: &Stream,
    how: &Update,
    grad: View<'_, f32>,
    m: ViewMut<'_, f32>,
    v: ViewMut<'_, f32>,
    w: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let count = grad.len();
    assert_eq!([m.len(), v.len(), w.len()], [count; 3], "elements");
    let (rate, spread, keep) = how.factors();
    let launch = Launch::of::<f32>(stream, Source::AdamW, "adamw_update");
    let launch = launch.float(how.betas.0).float(how.betas.1).float(rate).float(spread);
    let launch = launch.float(keep).float(how.eps).read(grad).write(m).write(v).write(w);
    launch.count(count).over(count)
}
