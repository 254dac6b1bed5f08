//! Routed rows on a device; formulas in [`crate::permute`].

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::{Launch, THREADS},
    program::Source,
};

/// Writes the row of each choice and the rows of each expert, sorted by (expert, token).
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn routing(
    stream: &Stream,
    choice: View<'_, i32>,
    rows: ViewMut<'_, i32>,
    mut counts: ViewMut<'_, i32>,
) -> Result<(), DeviceError> {
    let (choices, experts) = (choice.len(), counts.len());
    assert_eq!(rows.len(), choices, "a row for each choice");
    let grid = (experts, 1, 1);
    let launch = Launch::of::<f32>(stream, Source::Permute, "routing_count");
    let launch = launch.read(choice).write(counts.again()).count(choices);
    launch.go(grid, (THREADS, 1, 1))?;
    let launch = Launch::of::<f32>(stream, Source::Permute, "routing_place");
    let launch = launch.read(choice).read(counts.view()).write(rows).count(choices);
    launch.go(grid, (THREADS, 1, 1))
}

/// `y[row of (t, j)] = x[t]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn scatter<N: Float>(
    stream: &Stream,
    rows: View<'_, i32>,
    x: View<'_, N>,
    width: usize,
    per_token: usize,
    y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let tokens = rows.len() / per_token;
    assert_eq!((x.len(), y.len()), (tokens * width, rows.len() * width), "rows of {width}");
    let launch = Launch::of::<N>(stream, Source::Permute, "routing_scatter");
    let launch = launch.read(rows).read(x).count(width).count(per_token).write(y);
    launch.rows(tokens, width)
}

/// `y[t] = sum_j x[row of (t, j)]`, added in F32 in the order of `j`; the bits are the CPU's.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn gather_sum<N: Float>(
    stream: &Stream,
    rows: View<'_, i32>,
    x: View<'_, N>,
    width: usize,
    per_token: usize,
    y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let tokens = rows.len() / per_token;
    assert_eq!((x.len(), y.len()), (rows.len() * width, tokens * width), "rows of {width}");
    let launch = Launch::of::<N>(stream, Source::Permute, "routing_gather_sum");
    let launch = launch.read(rows).read(x).count(width).count(per_token).write(y);
    launch.rows(tokens, width)
}

/// `y[row of (t, j)] = x[t, j]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn sorted(
    stream: &Stream,
    rows: View<'_, i32>,
    x: View<'_, f32>,
    y: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let choices = rows.len();
    assert_eq!([x.len(), y.len()], [choices; 2], "choices");
    let launch = Launch::of::<f32>(stream, Source::Permute, "routing_sorted");
    launch.read(rows).read(x).write(y).count(choices).each(choices)
}

/// `x[t, j] = y[row of (t, j)]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn unsorted(
    stream: &Stream,
    rows: View<'_, i32>,
    y: View<'_, f32>,
    x: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let choices = rows.len();
    assert_eq!([x.len(), y.len()], [choices; 2], "choices");
    let launch = Launch::of::<f32>(stream, Source::Permute, "routing_unsorted");
    launch.read(rows).read(y).write(x).count(choices).each(choices)
}

/// `y[r, d] = share[r] * rows[r, d]`; the bits are the CPU's.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn weigh<N: Float>(
    stream: &Stream,
    rows: View<'_, N>,
    share: View<'_, f32>,
    width: usize,
    y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let count = share.len();
    assert_eq!([rows.len(), y.len()], [count * width; 2], "rows of {width}");
    let launch = Launch::of::<N>(stream, Source::Permute, "weigh");
    launch.read(rows).read(share).write(y).count(width).rows(count, width)
}

/// `dshare[r] = sum_d dy[r, d] * rows[r, d]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn weigh_share<N: Float>(
    stream: &Stream,
    rows: View<'_, N>,
    dy: View<'_, N>,
    width: usize,
    dshare: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let count = dshare.len();
    assert_eq!([rows.len(), dy.len()], [count * width; 2], "rows of {width}");
    let launch = Launch::of::<N>(stream, Source::Permute, "weigh_share");
    launch.read(rows).read(dy).write(dshare).count(width).rows(count, width)
}
