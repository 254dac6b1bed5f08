//! Exact sums of squares on a device, with the bits of [`crate::squares`].

use super::{
    DeviceError, Stream, View, ViewMut,
    launch::Launch,
    pieces::{Pieces, kernel},
    program::Source,
};
use crate::squares::{PART, WORDS};

/// Words that [`of_rows`] writes of a piece, for
/// [`Squares::from_words`](crate::squares::Squares::from_words).
pub const RESULT: usize = WORDS + 1;

/// Elements of F32 that [`of_rows`] needs beside its arguments, for each piece of so many elements.
pub fn scratch(elements: usize, columns: usize) -> usize {
    elements / columns.max(1) * columns.div_ceil(PART)
}

/// Sums the squares of the rows, of so many columns, of each piece.
///
/// `words` has [`RESULT`] words for each, one behind the other, and `parts` [`scratch`] elements,
/// whose content is lost.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other, those of pieces as well.
pub fn of_rows(
    stream: &Stream,
    values: &[View<'_, f32>],
    columns: usize,
    mut parts: ViewMut<'_, f32>,
    words: ViewMut<'_, u64>,
) -> Result<(), DeviceError> {
    let pieces = Pieces::read_first(values);
    let (how_many, count) = (values.len(), scratch(pieces.len(), columns));
    assert_eq!(pieces.len() % columns.max(1), 0, "elements of whole rows");
    let lengths = (how_many * count, how_many * RESULT);
    assert_eq!((parts.len(), words.len()), lengths, "parts and words");
    let kernel = kernel::<f32>(Source::Squares, "squares_parts");
    pieces.launches(stream, kernel, |launch, pieces| {
        let own = parts.again().part(pieces.start * count..pieces.end * count);
        let launch = launch.count(columns).count(columns.div_ceil(PART)).count(count);
        launch.write(own).each_of_pieces(16 * count, pieces.len())
    })?;
    let launch = Launch::of::<f32>(stream, Source::Squares, "squares_join");
    launch.read(parts.view()).count(count).write(words).go((how_many, 1, 1), (256, 1, 1))
}
