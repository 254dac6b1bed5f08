//! Where a tensor lies, and its way from one place to another.

use bytes::Bytes;
use kernels::cuda::{Element, Event, Gpu, View};

use super::{Piece, Storage, Tensor};
use crate::{Place, on_gpu::done};

impl Tensor {
    /// Where it lies.
    pub fn place(&self) -> Place {
        self.gpu().map_or(Place::Host, |gpu| Place::Gpu(gpu.clone()))
    }

    /// The GPU that it lies on.
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        self.storage.gpu()
    }

    /// The same values in a place; shares memory if they are there.
    pub fn at(&self, place: &Place) -> Self {
        match (place, &self.storage) {
            (Place::Host, Storage::Gpu(piece)) => {
                let bytes = done(piece.gpu().down(piece.view::<u8>()));
                Tensor::from_bytes(&self.shape, self.dtype, bytes.into())
            }
            (Place::Gpu(gpu), Storage::Host(bytes) | Storage::Parked(bytes, _)) => {
                let piece = Piece::of(gpu, done(gpu.up(bytes)));
                Tensor::stored(&self.shape, self.dtype, Storage::Gpu(piece))
            }
            _ => self.clone(),
        }
    }

    /// A copy in memory of the host, made by the thread of a copy lane: of a GPU's values behind
    /// `after`, into pinned memory. Values of the host stay the host's.
    pub fn parked(&self, after: Option<&Event>) -> Self {
        let storage = match (&self.storage, after) {
            (Storage::Gpu(piece), Some(after)) => {
                let gpu = piece.gpu();
                let bytes = Bytes::from_owner(done(gpu.park(after, piece.view())));
                Storage::Parked(bytes, gpu.clone())
            }
            (storage, _) => Storage::Host(Bytes::copy_from_slice(storage.host())),
        };
        Tensor::stored(&self.shape, self.dtype, storage)
    }

    /// A copy where the values were before they were [`parked`](Self::parked), made by the thread
    /// of a copy lane.
    pub fn fetched(&self) -> Self {
        let storage = match &self.storage {
            Storage::Parked(bytes, gpu) => Storage::Gpu(Piece::of(gpu, done(gpu.fetch(bytes)))),
            storage => Storage::Host(Bytes::copy_from_slice(storage.host())),
        };
        Tensor::stored(&self.shape, self.dtype, storage)
    }

    /// The elements on a GPU.
    pub(crate) fn view<T: Element>(&self) -> View<'_, T> {
        let is_alike = self.dtype.size() == size_of::<T>();
        assert!(is_alike, "{:?} values in an operator of another format", self.dtype);
        self.storage.view()
    }

    /// The bytes on a GPU.
    pub(crate) fn raw(&self) -> View<'_, u8> {
        self.storage.view()
    }

    /// Bytes of the elements.
    pub fn byte_len(&self) -> usize {
        self.storage.len()
    }

    /// Where the elements begin, as an address of the host or of a GPU.
    pub fn address(&self) -> usize {
        self.storage.address()
    }

    /// Tensors on the way to a rank: what lies on another GPU than the rank's, as one message
    /// between the two; what lies on the host stays there. Made by the thread of a communication
    /// lane, which waits for it.
    pub fn sent(tensors: &[Tensor], to: &Place) -> Vec<Tensor> {
        let is_apart = |tensor: &&Tensor| match (to, tensor.gpu()) {
            (Place::Gpu(to), Some(own)) => !to.is(own),
            _ => false,
        };
        let apart: Vec<&Tensor> = tensors.iter().filter(is_apart).collect();
        let (Place::Gpu(gpu), Some(from)) = (to, apart.first().and_then(|it| it.gpu())) else {
            return tensors.to_vec();
        };
        let pieces: Vec<View<'_, u8>> = apart.iter().map(|tensor| tensor.raw()).collect();
        let mut arrived = done(gpu.receive(from, &pieces)).into_iter();
        let each = |tensor: &Tensor| match is_apart(&tensor) {
            false => tensor.clone(),
            true => {
                let buffer = arrived.next().expect("a buffer for each piece");
                let storage = Storage::Gpu(Piece::of(gpu, buffer));
                Tensor::stored(&tensor.shape, tensor.dtype, storage)
            }
        };
        tensors.iter().map(each).collect()
    }
}
