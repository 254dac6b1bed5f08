//! Rows of a table on a device; formulas in [`crate::embedding`].

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::{Launch, THREADS},
    program::Source,
};

/// `y[t] = table[token[t]]`; a token that is not in the table gives a row of NaN.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn gather<N: Float>(
    stream: &Stream,
    table: View<'_, N>,
    width: usize,
    tokens: View<'_, i32>,
    y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let (count, vocab) = (tokens.len(), table.len() / width);
    assert_eq!(y.len(), count * width, "rows of {width}");
    let launch = Launch::of::<N>(stream, Source::Embedding, "embedding_gather");
    let launch = launch.read(table).count(width).read(tokens).write(y).count(vocab);
    launch.rows(count, width)
}

/// `dtable[token[t]] += dy[t]`, tokens in order; the bits are the CPU's.
///
/// A token that is not in the table adds nothing.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn scatter_add<N: Float>(
    stream: &Stream,
    dtable: ViewMut<'_, f32>,
    width: usize,
    tokens: View<'_, i32>,
    dy: View<'_, N>,
) -> Result<(), DeviceError> {
    let (count, vocab) = (tokens.len(), dtable.len() / width);
    assert_eq!(dy.len(), count * width, "rows of {width}");
    let launch = Launch::of::<N>(stream, Source::Embedding, "embedding_scatter_add");
    let launch = launch.write(dtable).count(width).read(tokens).read(dy).count(count).count(vocab);
    launch.go((count, 1, 1), (THREADS, 1, 1))
}
