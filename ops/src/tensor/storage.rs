//! What a tensor's elements lie in.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use kernels::cuda::{Buffer, Element, Gpu, View};

/// Bytes of the host or of a GPU that nobody changes; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Host(Bytes),
    /// Of the host as long as the GPU needs its memory for other things.
    Parked(Bytes, Gpu),
    Gpu(Piece),
}

/// A range of a buffer of a GPU.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    whole: Arc<Whole>,
    range: Range<usize>,
}

#[derive(Debug)]
struct Whole {
    gpu: Gpu,
    buffer: Buffer<u8>,
}

impl Piece {
    /// All of a buffer.
    pub fn of<T: Element>(gpu: &Gpu, buffer: Buffer<T>) -> Self {
        let buffer = buffer.into_bytes();
        let range = 0..buffer.len();
        Piece { whole: Arc::new(Whole { gpu: gpu.clone(), buffer }), range }
    }

    pub fn gpu(&self) -> &Gpu {
        &self.whole.gpu
    }

    /// The elements.
    pub fn view<T: Element>(&self) -> View<'_, T> {
        self.whole.buffer.view().part(self.range.clone()).cast()
    }

    fn slice(&self, range: Range<usize>) -> Self {
        let range = self.range.start + range.start..self.range.start + range.end;
        assert!(range.end <= self.range.end, "{range:?} of {:?}", self.range);
        Piece { whole: self.whole.clone(), range }
    }
}

impl Storage {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Storage::Host(bytes) | Storage::Parked(bytes, _) => bytes.len(),
            Storage::Gpu(piece) => piece.range.len(),
        }
    }

    /// Where the bytes begin.
    pub fn address(&self) -> usize {
        match self {
            Storage::Host(bytes) | Storage::Parked(bytes, _) => bytes.as_ptr() as usize,
            Storage::Gpu(piece) => piece.view::<u8>().address() as usize,
        }
    }

    /// Some of the bytes.
    ///
    /// # Panics
    ///
    /// If they are not all there.
    pub fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Storage::Host(bytes) => Storage::Host(bytes.slice(range)),
            Storage::Parked(bytes, gpu) => Storage::Parked(bytes.slice(range), gpu.clone()),
            Storage::Gpu(piece) => Storage::Gpu(piece.slice(range)),
        }
    }

    /// The bytes, which have to be the host's.
    ///
    /// # Panics
    ///
    /// If they are a GPU's.
    pub fn host(&self) -> &Bytes {
        match self {
            Storage::Host(bytes) | Storage::Parked(bytes, _) => bytes,
            Storage::Gpu(_) => panic!("values of a GPU are read on the host without a copy"),
        }
    }

    /// The GPU that they are on.
    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Storage::Host(_) | Storage::Parked(..) => None,
            Storage::Gpu(piece) => Some(piece.gpu()),
        }
    }

    /// The elements on a GPU.
    ///
    /// # Panics
    ///
    /// If they are the host's.
    pub fn view<T: Element>(&self) -> View<'_, T> {
        match self {
            Storage::Gpu(piece) => piece.view(),
            Storage::Host(_) | Storage::Parked(..) => {
                panic!("values of the host are read on a GPU without a copy")
            }
        }
    }
}
