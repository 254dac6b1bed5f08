//! Sums, maxima, scaling, columns and transposes on a device; formulas in [`crate::reduce`], whose
//! bits they have.

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::Launch,
    pieces::{Pieces, kernel},
    program::Source,
};

/// Most terms of [`sums`].
pub const TERMS: usize = 8;

/// `y[i] += x[i]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn add(stream: &Stream, y: ViewMut<'_, f32>, x: View<'_, f32>) -> Result<(), DeviceError> {
    let count = y.len();
    assert_eq!(x.len(), count, "elements");
    let launch = Launch::of::<f32>(stream, Source::Reduce, "add");
    launch.write(y).read(x).count(count).over(count)
}

/// `y[i] = (a[i] + b[i]) + c[i] + ..` in the order of `all`, rounded once.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ, or there is no term or more than [`TERMS`].
pub fn sums<N: Float>(
    stream: &Stream,
    all: &[View<'_, N>],
    y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let count = y.len();
    assert!((1..=TERMS).contains(&all.len()), "{} terms", all.len());
    assert!(all.iter().all(|x| x.len() == count), "elements");
    let mut terms = [0; TERMS];
    terms.iter_mut().zip(all).for_each(|(term, x)| *term = x.at());
    let launch = Launch::of::<N>(stream, Source::Reduce, "sums");
    launch.words(&terms).count(all.len()).write(y).count(count).over(count)
}

/// `y[i] += x[i]`, each sum rounded to its format.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn add_rounded<N: Float>(
    stream: &Stream,
    y: ViewMut<'_, N>,
    x: View<'_, N>,
) -> Result<(), DeviceError> {
    let count = y.len();
    assert_eq!(x.len(), count, "elements");
    let launch = Launch::of::<N>(stream, Source::Reduce, "add_rounded");
    launch.write(y).read(x).count(count).over(count)
}

/// `y[i] += a * x[i]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn add_scaled<N: Float>(
    stream: &Stream,
    y: ViewMut<'_, f32>,
    a: f32,
    x: View<'_, N>,
) -> Result<(), DeviceError> {
    let count = y.len();
    assert_eq!(x.len(), count, "elements");
    let launch = Launch::of::<N>(stream, Source::Reduce, "add_scaled");
    launch.write(y).float(a).read(x).count(count).over(count)
}

/// `y[i] = a * y[i] + b * x[i]` in each piece.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ, of pieces as well.
pub fn scale_and_add<N: Float>(
    stream: &Stream,
    y: &mut [ViewMut<'_, f32>],
    a: f32,
    b: f32,
    x: &[View<'_, N>],
) -> Result<(), DeviceError> {
    let len = x.first().map_or(0, View::len);
    let pieces = Pieces::new(x.len(), len).write(y).read(x);
    pieces.over(stream, kernel::<N>(Source::Reduce, "scale_and_add"), |launch, _| {
        launch.float(a).float(b)
    })
}

/// Momentum `m[i] = a * m[i] + g[i]` of each piece, and how far it looks ahead:
/// `ahead[i] = g[i] + a * m[i]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ, of pieces as well.
pub fn look_ahead(
    stream: &Stream,
    m: &mut [ViewMut<'_, f32>],
    a: f32,
    g: &[View<'_, f32>],
    ahead: &mut [ViewMut<'_, f32>],
) -> Result<(), DeviceError> {
    let len = g.first().map_or(0, View::len);
    let pieces = Pieces::new(g.len(), len).write(m).read(g).write(ahead);
    let kernel = kernel::<f32>(Source::Reduce, "look_ahead");
    pieces.over(stream, kernel, |launch, _| launch.float(a))
}

/// `y[i] = a * x[i]`, rounded to the format of `y`; one of the formats is F32, or both are the
/// same.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths differ.
pub fn scaled<A: Float, B: Float>(
    stream: &Stream,
    x: View<'_, A>,
    a: f32,
    y: ViewMut<'_, B>,
) -> Result<(), DeviceError> {
    let count = y.len();
    assert_eq!(x.len(), count, "elements");
    let launch = if A::FORMAT == B::FORMAT {
        Launch::of::<A>(stream, Source::Reduce, "scaled")
    } else if B::FORMAT == <f32 as Float>::FORMAT {
        Launch::of::<A>(stream, Source::Reduce, "scaled_wide")
    } else {
        Launch::of::<B>(stream, Source::Reduce, "scaled_narrow")
    };
    launch.read(x).float(a).write(y).count(count).over(count)
}

/// `y[i] *= a`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
pub fn scale(stream: &Stream, y: ViewMut<'_, f32>, a: f32) -> Result<(), DeviceError> {
    let count = y.len();
    let launch = Launch::of::<f32>(stream, Source::Reduce, "scale");
    launch.write(y).float(a).count(count).over(count)
}

/// Writes columns `from ..` of `x [rows, width]` into `y [rows, cols]`.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn split<N: Float>(
    stream: &Stream,
    x: View<'_, N>,
    width: usize,
    from: usize,
    cols: usize,
    y: ViewMut<'_, N>,
) -> Result<(), DeviceError> {
    let rows = rows_of(x.len(), width, from, y.len(), cols);
    let launch = Launch::of::<N>(stream, Source::Reduce, "columns");
    let launch = launch.read(x).count(width).count(from).write(y).count(cols).number(0);
    launch.rows(rows, cols)
}

/// Writes `y [rows, cols]` into columns `from ..` of `x [rows, width]`, and leaves the others.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn join<N: Float>(
    stream: &Stream,
    x: ViewMut<'_, N>,
    width: usize,
    from: usize,
    cols: usize,
    y: View<'_, N>,
) -> Result<(), DeviceError> {
    let rows = rows_of(x.len(), width, from, y.len(), cols);
    let launch = Launch::of::<N>(stream, Source::Reduce, "columns");
    let launch = launch.write(x).count(width).count(from).read(y).count(cols).number(1);
    launch.rows(rows, cols)
}

fn rows_of(whole: usize, width: usize, from: usize, part: usize, cols: usize) -> usize {
    assert!(from + cols <= width, "columns {from}..{} of {width}", from + cols);
    let rows = whole / width.max(1);
    assert_eq!((whole, part), (rows * width, rows * cols), "elements of whole rows");
    rows
}

/// Writes the largest of each column of `x [rows, cols]`, minus infinity where there is no row.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn largest_of_columns(
    stream: &Stream,
    x: View<'_, f32>,
    largest: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let cols = largest.len();
    let rows = x.len() / cols.max(1);
    assert_eq!(x.len(), rows * cols, "elements of whole rows");
    let launch = Launch::of::<f32>(stream, Source::Reduce, "largest_of_columns");
    launch.read(x).count(rows).count(cols).write(largest).go((cols, 1, 1), (256, 1, 1))
}
