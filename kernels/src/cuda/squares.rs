//! Exact sums of squares on a device, with the bits of [`crate::squares`].

use super::{DeviceError, Stream, View, ViewMut, launch::Launch, program::Source};
use crate::squares::{PART, WORDS};

/// Words that [`of_rows`] writes, for
/// [`Squares::from_words`](crate::squares::Squares::from_words).
pub const RESULT: usize = WORDS + 1;

/// Elements of F32 that [`of_rows`] needs beside its arguments.
pub fn scratch(elements: usize, columns: usize) -> usize {
    elements / columns.max(1) * columns.div_ceil(PART)
}

/// Sums the squares of rows of so many columns.
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
pub fn of_rows(
    stream: &Stream,
    values: View<'_, f32>,
    columns: usize,
    mut parts: ViewMut<'_, f32>,
    words: ViewMut<'_, u64>,
) -> Result<(), DeviceError> {
    let count = scratch(values.len(), columns);
    assert_eq!(values.len() % columns.max(1), 0, "elements of whole rows");
    assert_eq!((parts.len(), words.len()), (count, RESULT), "parts and words");
    let launch = Launch::of::<f32>(stream, Source::Squares, "squares_parts");
    let launch = launch.read(values).count(columns).count(columns.div_ceil(PART)).count(count);
    launch.write(parts.again()).each(16 * count)?;
    let launch = Launch::of::<f32>(stream, Source::Squares, "squares_join");
    launch.read(parts.view()).count(count).write(words).go((1, 1, 1), (256, 1, 1))
}
