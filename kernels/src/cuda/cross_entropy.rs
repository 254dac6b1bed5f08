//! Softmax over the vocabulary on a device; formulas in [`crate::cross_entropy`].
//!
//! Logits are `[tokens, cols]`, some columns of the vocabulary; the state of a token is its largest
//! logit so far, minus infinity at first, and the sum of `exp(logit - largest)`, zero at first.

use super::{DeviceError, Float, Stream, View, ViewMut, launch::Launch, program::Source};

/// Takes `cols` more columns into the state of each token.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn extend(
    stream: &Stream,
    logits: View<'_, f32>,
    cols: usize,
    largest: ViewMut<'_, f32>,
    sums: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let tokens = largest.len();
    assert_eq!((logits.len(), sums.len()), (tokens * cols, tokens), "[{tokens}, {cols}]");
    let launch = Launch::of::<f32>(stream, Source::CrossEntropy, "cross_entropy_extend");
    launch.read(logits).count(cols).write(largest).write(sums).rows(tokens, cols)
}

/// Writes the natural logarithms of the sums.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn finish(
    stream: &Stream,
    largest: View<'_, f32>,
    sums: View<'_, f32>,
    log_sums: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let tokens = largest.len();
    assert_eq!([sums.len(), log_sums.len()], [tokens; 2], "tokens");
    let launch = Launch::of::<f32>(stream, Source::CrossEntropy, "cross_entropy_finish");
    launch.read(largest).read(sums).write(log_sums).count(tokens).each(tokens)
}

/// Writes the logit of each target among columns `first..first + cols`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn pick(
    stream: &Stream,
    logits: View<'_, f32>,
    cols: usize,
    first: usize,
    targets: View<'_, i32>,
    picked: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let tokens = targets.len();
    assert_eq!((logits.len(), picked.len()), (tokens * cols, tokens), "[{tokens}, {cols}]");
    let launch = Launch::of::<f32>(stream, Source::CrossEntropy, "cross_entropy_pick");
    let launch = launch.read(logits).count(cols).count(first).read(targets).write(picked);
    launch.count(tokens).each(tokens)
}

/// Writes the gradients of logits, `(softmax - [v = target]) * scale`; the bits are the CPU's.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn gradient<N: Float>(
    stream: &Stream,
    logits: View<'_, f32>,
    cols: usize,
    first: usize,
    log_sums: View<'_, f32>,
    targets: View<'_, i32>,
    scale: f32,
    dlogits: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let tokens = targets.len();
    assert_eq!(log_sums.len(), tokens, "tokens");
    assert_eq!([logits.len(), dlogits.len()], [tokens * cols; 2], "[{tokens}, {cols}]");
    let launch = Launch::of::<N>(stream, Source::CrossEntropy, "cross_entropy_gradient");
    let launch = launch.read(logits).count(cols).count(first).read(log_sums).read(targets);
    launch.float(scale).write(dlogits).rows(tokens, cols)
}
