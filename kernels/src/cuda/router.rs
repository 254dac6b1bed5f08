//! The router on a device; formulas in [`crate::router`].

use super::{
    DeviceError, Stream, View, ViewMut,
    launch::{Launch, THREADS},
    program::Source,
};
use crate::router::Choice;

/// Turns logits into scores, in place; the bits are the CPU's.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
pub fn scores(stream: &Stream, logits: ViewMut<'_, f32>) -> Result<(), DeviceError> {
    let count = logits.len();
    let launch = Launch::of::<f32>(stream, Source::Router, "router_scores");
    launch.write(logits).count(count).over(count)
}

/// Writes the chosen experts of each token, largest `scores [t, e] + bias [e]` first, of equal ones
/// the lower number.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn choose(
    stream: &Stream,
    how: &Choice,
    scores: View<'_, f32>,
    bias: View<'_, f32>,
    chosen: ViewMut<'_, i32>,
) -> Result<(), DeviceError> {
    let &Choice { experts, per_token, groups, groups_per_token } = how;
    let tokens = chosen.len() / per_token;
    assert_eq!(chosen.len(), tokens * per_token, "choices of {tokens} tokens");
    assert_eq!((scores.len(), bias.len()), (tokens * experts, experts), "[{tokens}, {experts}]");
    let open = experts / groups * groups_per_token;
    assert!(per_token <= open, "{per_token} experts of {open} that are open");
    let warps = THREADS as usize / 32;
    let launch = Launch::of::<f32>(stream, Source::Router, "router_choose");
    let launch = launch.read(scores).read(bias).write(chosen).count(tokens).count(experts);
    let launch = launch.count(per_token).count(groups).count(groups_per_token);
    let launch = launch.shared(size_of::<f32>() * warps * (experts + groups));
    launch.go((tokens.div_ceil(warps), 1, 1), (THREADS, 1, 1))
}

/// Writes the chosen scores and `share = scaling * score / (sum of the token's + 1e-20)`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn shares(
    stream: &Stream,
    experts: usize,
    per_token: usize,
    scaling: f32,
    scores: View<'_, f32>,
    chosen: View<'_, i32>,
    chosen_scores: ViewMut<'_, f32>,
    shares: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let tokens = chosen.len() / per_token;
    assert_eq!(scores.len(), tokens * experts, "scores of {tokens} tokens");
    let choices = tokens * per_token;
    assert_eq!([chosen.len(), chosen_scores.len(), shares.len()], [choices; 3], "choices");
    let launch = Launch::of::<f32>(stream, Source::Router, "router_shares");
    let launch = launch.count(experts).count(per_token).float(scaling).read(scores).read(chosen);
    launch.write(chosen_scores).write(shares).count(tokens).each(tokens)
}

/// Writes the gradient of the logits into `dlogits [t, e]`, zero but for the chosen ones.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn backward(
    stream: &Stream,
    experts: usize,
    per_token: usize,
    scaling: f32,
    chosen: View<'_, i32>,
    chosen_scores: View<'_, f32>,
    dshares: View<'_, f32>,
    mut dlogits: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let tokens = chosen.len() / per_token;
    assert_eq!(dlogits.len(), tokens * experts, "logits of {tokens} tokens");
    let choices = tokens * per_token;
    assert_eq!([chosen.len(), chosen_scores.len(), dshares.len()], [choices; 3], "choices");
    stream.fill(dlogits.again(), 0)?;
    let launch = Launch::of::<f32>(stream, Source::Router, "router_backward");
    let launch = launch.count(experts).count(per_token).float(scaling).read(chosen);
    launch.read(chosen_scores).read(dshares).write(dlogits).count(tokens).each(tokens)
}
