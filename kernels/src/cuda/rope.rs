//! Rotary positions on a device; formulas in [`crate::rope`].

use super::{DeviceError, Float, Stream, View, ViewMut, launch::Launch, program::Source};

/// Where the pairs of a tensor stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Rows of each token, such as heads.
    pub rows_per_token: usize,
    /// Tokens of a sequence, where positions restart.
    pub sequence: usize,
    /// Columns of a row.
    pub width: usize,
    /// The first column that is turned.
    pub from: usize,
    /// Pairs of columns that are turned.
    pub pairs: usize,
}

impl Place {
    fn assert_fits(&self, elements: usize, turns: usize) -> usize {
        let Place { rows_per_token, sequence, width, from, pairs } = *self;
        assert!(from + 2 * pairs <= width, "{pairs} pairs from column {from} of {width}");
        assert_eq!(turns, sequence * pairs * 2, "angles of {sequence} positions");
        assert_eq!(elements % (width * rows_per_token).max(1), 0, "elements of whole tokens");
        elements / width.max(1)
    }
}

/// Turns the pairs of `x`, in place, by `turns [sequence, pairs, 2]`, cosines and sines.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn turn<N: Float>(
    stream: &Stream,
    turns: View<'_, f32>,
    place: &Place,
    x: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let rows = place.assert_fits(x.len(), turns.len());
    launched(Launch::of::<N>(stream, Source::Rope, "rope_turn"), turns, place, rows, x)
}

/// The transpose of [`turn`], which takes gradients back.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn turn_back(
    stream: &Stream,
    turns: View<'_, f32>,
    place: &Place,
    x: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let rows = place.assert_fits(x.len(), turns.len());
    launched(Launch::of::<f32>(stream, Source::Rope, "rope_turn_back"), turns, place, rows, x)
}

fn launched<N>(
    launch: Launch<'_>,
    turns: View<'_, f32>,
    place: &Place,
    rows: usize,
    x: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let Place { rows_per_token, sequence, width, from, pairs } = *place;
    let launch = launch.write(x).read(turns).count(rows).count(rows_per_token).count(sequence);
    // A thread has one pair, so as many threads as for eight times the elements.
    launch.count(width).count(from).count(pairs).over(8 * rows * pairs)
}
