//! Pieces of one length that a launch goes through at a time, such as the weights of all experts of
//! a layer: a launch takes the host some microseconds, whatever it has to do.
//!
//! A piece's bits do not depend on the others, so nobody has to say what goes with what.

use std::ops::Range;

use super::{
    DeviceError, Element, Float, Stream, View, ViewMut,
    launch::Launch,
    program::{Program, Source},
};

/// Pieces of one launch, as in `prelude.cuh`: a table of four addresses for each takes 2 KiB of the
/// 4 KiB that arguments may have.
pub const PIECES: usize = 64;

/// Pieces of a length that lie one behind the other.
pub(super) fn cut<T: Element>(view: View<'_, T>, len: usize) -> Vec<View<'_, T>> {
    let starts = (0..view.len()).step_by(len.max(1));
    starts.map(|start| view.part(start..start + len)).collect()
}

/// The same to write.
pub(super) fn cut_mut<T: Element>(view: ViewMut<'_, T>, len: usize) -> Vec<ViewMut<'_, T>> {
    let (mut pieces, mut left) = (Vec::new(), view);
    while !left.is_empty() {
        let (piece, behind) = left.split_at(len);
        pieces.push(piece);
        left = behind;
    }
    pieces
}

/// A kernel of a program.
pub(super) type Kernel = (Program, &'static str);

/// A kernel in the form for a format of activations.
pub(super) fn kernel<N: Float>(source: Source, name: &'static str) -> Kernel {
    (Program { source, format: N::FORMAT }, name)
}

/// Where the pieces lie: for each address that a kernel takes of them, a list.
#[derive(Debug)]
pub(super) struct Pieces {
    how_many: usize,
    len: usize,
    ways: Vec<Vec<u64>>,
}

impl Pieces {
    /// So many pieces of a length.
    pub(super) fn new(how_many: usize, len: usize) -> Self {
        Pieces { how_many, len, ways: Vec::new() }
    }

    /// As many as there are views, and as long.
    ///
    /// # Panics
    ///
    /// If their lengths differ.
    pub(super) fn read_first<T>(views: &[View<'_, T>]) -> Self {
        Self::new(views.len(), views.first().map_or(0, View::len)).read(views)
    }

    /// Elements of one piece.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What is read of each.
    ///
    /// # Panics
    ///
    /// If there are more or fewer, or one has another length.
    pub(super) fn read<T>(self, views: &[View<'_, T>]) -> Self {
        self.way(views.iter().map(|view| (view.at(), view.len())))
    }

    /// What is written of each.
    ///
    /// # Panics
    ///
    /// If there are more or fewer, or one has another length.
    pub(super) fn write<T>(self, views: &mut [ViewMut<'_, T>]) -> Self {
        self.way(views.iter().map(|view| (view.at(), view.len())))
    }

    fn way(mut self, views: impl ExactSizeIterator<Item = (u64, usize)>) -> Self {
        assert_eq!(views.len(), self.how_many, "pieces");
        let place = |(at, len)| {
            assert_eq!(len, self.len, "elements of a piece");
            at
        };
        self.ways.push(views.map(place).collect());
        self
    }

    /// Queues a kernel for all pieces, whose threads stride over the elements of each in groups of
    /// eight; `rest` are the arguments between the table and the number of elements.
    pub(super) fn over(
        &self,
        stream: &Stream,
        kernel: Kernel,
        rest: impl Fn(Launch<'_>, Range<usize>) -> Launch<'_>,
    ) -> Result<(), DeviceError> {
        self.launches(stream, kernel, |launch, pieces| {
            let how_many = pieces.len();
            rest(launch, pieces).count(self.len).over_pieces(self.len, how_many)
        })
    }

    /// Launches a kernel with the table of at most [`PIECES`] pieces, and of the others after them.
    pub(super) fn launches(
        &self,
        stream: &Stream,
        (program, name): Kernel,
        mut go: impl FnMut(Launch<'_>, Range<usize>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        for first in (0..self.how_many).step_by(PIECES) {
            let pieces = first..self.how_many.min(first + PIECES);
            let mut table = vec![0; self.ways.len() * PIECES];
            for (row, way) in table.chunks_exact_mut(PIECES).zip(&self.ways) {
                row[..pieces.len()].copy_from_slice(&way[pieces.clone()]);
            }
            go(Launch::of_program(stream, program, name).words(&table), pieces)?;
        }
        Ok(())
    }
}
