//! Tensors: a shape, a number format and reference-counted bytes that nobody changes again.
//!
//! A tensor is written once, by the operator that makes it, and shared from then on: a clone and
//! a message to another actor of the same process copy no byte.

mod places;
mod storage;

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use half::bf16;
use kernels::{
    cuda::Float,
    gemm::{Matrix, Right, Values, multiply},
    number::Number,
    reduce::sum,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::storage::{Piece, Storage};
use crate::on_gpu::{products, rows};

/// A number format.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper half of an F32, as trainers store activations and weights.
    Bf16,
    /// Token numbers, expert numbers and row counts.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::Bf16 => 2,
        }
    }
}

/// Values of one format in row-major order, on the host or on a GPU; cheap to clone, never written
/// again.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    dtype: DType,
    storage: Storage,
}

/// Calls a function that is generic over the format of floats for the one of a [`DType`].
macro_rules! in_format {
    ($dtype:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $dtype {
            $crate::DType::F32 => $function::<f32>($($argument),*),
            $crate::DType::Bf16 => $function::<half::bf16>($($argument),*),
            $crate::DType::I32 => panic!("whole numbers are no floats"),
        }
    };
}

pub(crate) use in_format;

/// Gives a vector of plain numbers to `Bytes` without copying it.
struct Owned<T>(Vec<T>);

impl<T: bytemuck::NoUninit> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

pub(crate) fn into_bytes<T: bytemuck::NoUninit + Send + 'static>(values: Vec<T>) -> Bytes {
    Bytes::from_owner(Owned(values))
}

impl Tensor {
    /// Wraps single-precision values.
    ///
    /// # Panics
    ///
    /// If `values` does not have the length that `shape` says.
    pub fn from_f32(shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "length of {shape:?}");
        Tensor::stored(shape, DType::F32, Storage::Host(into_bytes(values)))
    }

    /// Wraps whole numbers: tokens, experts, counts.
    ///
    /// # Panics
    ///
    /// If `values` does not have the length that `shape` says.
    pub fn from_i32(shape: &[usize], values: Vec<i32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "length of {shape:?}");
        Tensor::stored(shape, DType::I32, Storage::Host(into_bytes(values)))
    }

    /// Rounds single-precision values to `dtype`, to nearest even; F32 keeps them as they are.
    ///
    /// # Panics
    ///
    /// If `dtype` is [`DType::I32`] or the length does not fit `shape`.
    pub fn rounded(shape: &[usize], values: Vec<f32>, dtype: DType) -> Self {
        match dtype {
            DType::F32 => Tensor::from_f32(shape, values),
            _ => Tensor::nearest(shape, &values, dtype),
        }
    }

    /// As [`rounded`](Self::rounded), of values that somebody else keeps.
    ///
    /// # Panics
    ///
    /// If `dtype` is [`DType::I32`] or the length does not fit `shape`.
    pub fn nearest(shape: &[usize], values: &[f32], dtype: DType) -> Self {
        match dtype {
            DType::F32 => Tensor::from_f32(shape, values.to_vec()),
            DType::Bf16 => Tensor::of(shape, kernels::cast::narrow(values)),
            DType::I32 => panic!("whole numbers are not rounded"),
        }
    }

    /// Wraps floats in the format they have.
    ///
    /// # Panics
    ///
    /// If `values` does not have the length that `shape` says.
    pub(crate) fn of<N: Number>(shape: &[usize], values: Vec<N>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "length of {shape:?}");
        let dtype = match N::values(&[]) {
            Values::F32(_) => DType::F32,
            Values::Bf16(_) => DType::Bf16,
        };
        Tensor::stored(shape, dtype, Storage::Host(into_bytes(values)))
    }

    /// The product `[rows, cols]` of two matrices, rounded once.
    ///
    /// # Panics
    ///
    /// If the extents do not fit each other or `dtype` is [`DType::I32`].
    pub(crate) fn product<'b>(
        shape: [usize; 2],
        dtype: DType,
        a: Matrix<'_>,
        b: impl Into<Right<'b>>,
    ) -> Self {
        let b = b.into();
        fn written<N: Number>(shape: [usize; 2], a: Matrix<'_>, b: Right<'_>) -> Tensor {
            Tensor::of(&shape, multiply::<N>(a, b))
        }
        in_format!(dtype, written(shape, a, b))
    }

    /// The same values in the given format; shares memory if they have it already.
    ///
    /// # Panics
    ///
    /// If either format is [`DType::I32`].
    pub(crate) fn to(&self, dtype: DType) -> Self {
        if self.dtype == dtype {
            return self.clone();
        }
        match self.gpu() {
            Some(gpu) => rows::cast(gpu, self, dtype),
            None => Tensor::rounded(&self.shape, self.f32().into_owned(), dtype),
        }
    }

    /// `x w^T` of `x [t, i]` and `w [o, i]`, rounded once: `[t, o]`.
    ///
    /// # Panics
    ///
    /// If the extents do not fit each other, or the two are in different places.
    pub(crate) fn through(&self, w: &Tensor, dtype: DType) -> Self {
        match self.gpu() {
            Some(gpu) => products::product(gpu, self, w, true, dtype),
            None => {
                let shape = [self.shape[0], w.shape[0]];
                Tensor::product(shape, dtype, self.matrix(), w.matrix().transposed())
            }
        }
    }

    /// `dy w` of `dy [t, o]` and `w [o, i]`, rounded once: `[t, i]`.
    ///
    /// # Panics
    ///
    /// If the extents do not fit each other, or the two are in different places.
    pub(crate) fn back_through(&self, w: &Tensor, dtype: DType) -> Self {
        match self.gpu() {
            Some(gpu) => products::product(gpu, self, w, false, dtype),
            None => {
                let shape = [self.shape[0], w.shape[1]];
                Tensor::product(shape, dtype, self.matrix(), w.matrix())
            }
        }
    }

    pub(crate) fn stored(shape: &[usize], dtype: DType, storage: Storage) -> Self {
        Tensor { shape: shape.to_vec(), dtype, storage }
    }

    /// Bytes that are no numbers of the host's formats; see [`Stored`](crate::Stored).
    pub(crate) fn of_bytes(bytes: Bytes) -> Self {
        Tensor::stored(&[bytes.len()], DType::I32, Storage::Host(bytes))
    }

    /// The floats as they lie in memory.
    ///
    /// # Panics
    ///
    /// If the tensor holds whole numbers.
    pub fn values(&self) -> Values<'_> {
        match self.dtype {
            DType::F32 => Values::F32(cast(self.storage.host())),
            DType::Bf16 => Values::Bf16(cast(self.storage.host())),
            DType::I32 => panic!("whole numbers are not read as floats"),
        }
    }

    /// The floats, in a format that the caller knows.
    ///
    /// # Panics
    ///
    /// If they have another.
    pub(crate) fn numbers<N: Number>(&self) -> &[N] {
        let is_it = matches!(
            (self.values(), N::values(&[])),
            (Values::F32(_), Values::F32(_)) | (Values::Bf16(_), Values::Bf16(_))
        );
        assert!(is_it, "{:?} values in an operator of another format", self.dtype);
        cast(self.storage.host())
    }

    /// A tensor of two dims as a matrix.
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix::of(self.values(), self.shape[0], self.shape[1], self.shape[1])
    }

    /// Takes bytes that came from elsewhere, copying them only if they lie badly in memory.
    ///
    /// # Panics
    ///
    /// If the number of bytes is not what shape and format say.
    pub fn from_bytes(shape: &[usize], dtype: DType, bytes: Bytes) -> Self {
        assert_eq!(shape.iter().product::<usize>() * dtype.size(), bytes.len());
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(dtype.size());
        let bytes = if aligned { bytes } else { realigned(dtype, &bytes) };
        Tensor::stored(shape, dtype, Storage::Host(bytes))
    }

    /// Extents of the dims, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Format of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements as they lie in memory of the host.
    ///
    /// # Panics
    ///
    /// If they lie on a GPU.
    pub fn bytes(&self) -> &Bytes {
        self.storage.host()
    }

    /// Pieces one behind the other along the first dim; a single piece is passed on as it is.
    ///
    /// # Panics
    ///
    /// If there is none, or they are in different places.
    pub fn concatenated(pieces: &[Tensor]) -> Self {
        if let [only] = pieces {
            return only.clone();
        }
        let (mut shape, dtype) = (pieces[0].shape.clone(), pieces[0].dtype);
        shape[0] = pieces.iter().map(|piece| piece.shape[0]).sum();
        if let Some(gpu) = pieces[0].gpu() {
            return rows::concatenated(gpu, &shape, pieces);
        }
        let size = pieces.iter().map(Tensor::byte_len).sum();
        let mut bytes = Vec::with_capacity(size);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.bytes()));
        Tensor::from_bytes(&shape, dtype, bytes.into())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element, as for an expert that got no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in single precision; borrowed unless they have to be widened.
    ///
    /// # Panics
    ///
    /// If the tensor holds whole numbers.
    pub fn f32(&self) -> Cow<'_, [f32]> {
        match self.dtype {
            DType::F32 => Cow::Borrowed(cast(self.storage.host())),
            DType::Bf16 => {
                let narrow: &[bf16] = cast(self.storage.host());
                let mut wide = vec![0.0; narrow.len()];
                kernels::cast::widen(narrow, &mut wide);
                Cow::Owned(wide)
            }
            DType::I32 => panic!("whole numbers are not read as floats"),
        }
    }

    /// The values of a tensor of whole numbers.
    ///
    /// # Panics
    ///
    /// If the tensor holds floats.
    pub fn i32(&self) -> &[i32] {
        assert_eq!(self.dtype, DType::I32, "floats are not read as whole numbers");
        cast(self.storage.host())
    }

    /// The sum with a tensor of the same shape, added in f32 and rounded to the format of this one.
    pub fn plus(&self, other: &Tensor) -> Self {
        fn added<N: Float>(a: &Tensor, b: &Tensor) -> Tensor {
            if let Some(gpu) = a.gpu() {
                return rows::sums::<N>(gpu, &[a.clone(), b.clone()]);
            }
            Tensor::of(&a.shape, sum::<N>(a.numbers(), b.numbers()))
        }
        in_format!(self.dtype, added(self, &other.to(self.dtype)))
    }

    /// The given rows of the first dim, sharing memory with this tensor.
    ///
    /// # Panics
    ///
    /// If the rows are not all there.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let row = self.shape[1..].iter().product::<usize>() * self.dtype.size();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let storage = self.storage.slice(rows.start * row..rows.end * row);
        Tensor { shape, dtype: self.dtype, storage }
    }
}

/// Reads bytes as numbers; an empty slice may lie anywhere.
pub(crate) fn cast<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> &[T] {
    if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
}

fn realigned(dtype: DType, bytes: &[u8]) -> Bytes {
    match dtype {
        DType::F32 => into_bytes(bytemuck::pod_collect_to_vec::<u8, f32>(bytes)),
        DType::Bf16 => into_bytes(bytemuck::pod_collect_to_vec::<u8, bf16>(bytes)),
        DType::I32 => into_bytes(bytemuck::pod_collect_to_vec::<u8, i32>(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_memory_with_the_whole() {
        let whole = Tensor::from_f32(&[3, 2], vec![1., 2., 3., 4., 5., 6.]);
        let part = whole.rows(1..3);
        assert_eq!(part.f32().as_ref(), [3., 4., 5., 6.]);
        assert_eq!(part.bytes().as_ptr() as usize, whole.bytes().as_ptr() as usize + 8);
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        let x = Tensor::rounded(&[2], vec![1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0], DType::Bf16);
        assert_eq!(x.f32().as_ref(), [1.0, 1.0 + 4.0 / 256.0]);
    }

    #[test]
    fn badly_aligned_bytes_are_copied() {
        let mut raw = vec![0_u8];
        raw.extend(2.5_f32.to_ne_bytes());
        let x = Tensor::from_bytes(&[1], DType::F32, Bytes::from(raw).slice(1..));
        assert_eq!(x.f32().as_ref(), [2.5]);
    }
}
