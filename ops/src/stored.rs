//! Tensors as they are kept between `F` and the backward halves when memory is short: in FP8.
//!
//! Kimi K2, arXiv:2507.20534, section 2.4.3. What the codes can hold is told in [`kernels::fp8`].

use kernels::{
    cuda::{Event, Float},
    fp8::{self, tiles},
};

use crate::{
    DType, Tensor,
    on_gpu::rows,
    tensor::{cast, in_format, into_bytes},
};

/// Bytes of a scale.
const SCALE_BYTES: usize = size_of::<f32>();

/// Floats in FP8, a byte each, with a scale for each 128 of a row; cheap to clone, never written
/// again.
///
/// Nothing is computed with them: [`decode`](Self::decode) gives a tensor back.
#[derive(Clone, Debug)]
pub struct Stored {
    shape: [usize; 2],
    dtype: DType,
    /// Scales `[rows, tiles]`, which have to be aligned, then codes `[rows, width]`: bytes in the
    /// guise of a tensor, so that they go where tensors go.
    all: Tensor,
}

impl Stored {
    /// Rounds a tensor `[rows, width]` to FP8.
    ///
    /// # Panics
    ///
    /// If the tensor holds whole numbers or does not have two dims.
    pub fn encode(x: &Tensor) -> Self {
        let &[rows, width] = x.shape() else { panic!("{:?} has no rows to store", x.shape()) };
        let all = in_format!(x.dtype(), encode(x, rows, width));
        Stored { shape: [rows, width], dtype: x.dtype(), all }
    }

    /// A tensor of the shape and format of the one that was stored.
    pub fn decode(&self) -> Tensor {
        in_format!(self.dtype, decode(self))
    }

    /// A copy in memory of the host; see [`Tensor::parked`].
    pub fn parked(&self, after: Option<&Event>) -> Self {
        Stored { all: self.all.parked(after), ..self.clone() }
    }

    /// A copy where they were before; see [`Tensor::fetched`].
    pub fn fetched(&self) -> Self {
        Stored { all: self.all.fetched(), ..self.clone() }
    }

    /// Extents of the dims, slowest first: `[rows, width]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Format of the elements that come back.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes of the codes and scales together.
    pub fn bytes(&self) -> u64 {
        self.all.byte_len() as u64
    }

    /// Where codes and scales lie, as an address, and how many bytes they reach; clones agree in
    /// both.
    pub fn place(&self) -> (usize, usize) {
        (self.all.address(), self.all.byte_len())
    }
}

/// Bytes that `[rows, width]` floats take when they are stored, whatever their format.
pub fn stored_bytes(rows: usize, width: usize) -> u64 {
    rows as u64 * (width + SCALE_BYTES * tiles(width)) as u64
}

/// Bytes of the scales of so many rows.
pub(crate) fn scales_of(rows: usize, width: usize) -> usize {
    SCALE_BYTES * rows * tiles(width)
}

fn encode<N: Float>(x: &Tensor, rows: usize, width: usize) -> Tensor {
    let size = stored_bytes(rows, width) as usize;
    if let Some(gpu) = x.gpu() {
        return rows::encode::<N>(gpu, x, size);
    }
    let count = rows * tiles(width);
    // Numbers that scales can lie in; what the last is longer than the codes is cut off.
    let mut all = vec![0.0_f32; count + (rows * width).div_ceil(SCALE_BYTES)];
    let (scales, codes) = all.split_at_mut(count);
    let codes = &mut bytemuck::cast_slice_mut(codes)[..rows * width];
    fp8::encode::<N>(x.numbers(), width, codes, scales);
    Tensor::of_bytes(into_bytes(all).slice(..size))
}

fn decode<N: Float>(stored: &Stored) -> Tensor {
    let [rows, width] = stored.shape;
    if let Some(gpu) = stored.all.gpu() {
        return rows::decode::<N>(gpu, &stored.all, stored.shape);
    }
    let (scales, codes) = stored.all.bytes().split_at(scales_of(rows, width));
    let mut x = vec![N::ZERO; rows * width];
    fp8::decode(codes, cast(scales), width, &mut x);
    Tensor::of(&stored.shape, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(shape: &[usize], dtype: DType) -> Tensor {
        let seed = 43;
        println!("seed {seed}");
        let mut values = vec![0.0; shape.iter().product()];
        kernels::random::fill_normal(&mut values, seed, 0, 1.5);
        Tensor::rounded(shape, values, dtype)
    }

    #[test]
    fn what_comes_back_has_the_shape_and_format_and_is_near() {
        for dtype in [DType::F32, DType::Bf16] {
            for shape in [[5, 256], [3, 200], [7, 31], [2, 1]] {
                let x = random(&shape, dtype);
                let back = Stored::encode(&x).decode();
                assert_eq!((back.shape(), back.dtype()), (&shape[..], dtype));
                for (x, back) in x.f32().iter().zip(back.f32().iter()) {
                    // The largest element is below 10: half the smallest step is 2^-10 10 / 448.
                    let allowed = (x.abs() / 16.0).max(2.2e-5);
                    assert!((x - back).abs() <= allowed, "{back} is not {x}");
                }
            }
        }
    }

    #[test]
    fn what_came_back_once_comes_back_the_same() {
        let once = Stored::encode(&random(&[4, 300], DType::F32)).decode();
        let twice = Stored::encode(&once).decode();
        for (once, twice) in once.f32().iter().zip(twice.f32().iter()) {
            // The scale may be another by the last bit.
            assert!((once - twice).abs() <= 1e-6 * once.abs(), "{once} became {twice}");
        }
    }

    #[test]
    fn bytes_are_those_of_codes_and_scales() {
        for shape in [[5, 256], [3, 200], [7, 31], [0, 256], [4, 0]] {
            let [rows, width] = shape;
            let stored = Stored::encode(&random(&shape, DType::Bf16));
            let tiles = width.div_ceil(128);
            assert_eq!(stored.bytes(), (rows * (width + 4 * tiles)) as u64);
            assert_eq!(stored.bytes(), stored_bytes(rows, width));
        }
    }

    #[test]
    fn clones_share_one_place() {
        let x = random(&[4, 130], DType::F32);
        let stored = Stored::encode(&x);
        assert_eq!(stored.clone().place(), stored.place());
        assert_ne!(Stored::encode(&x).place(), stored.place());
        assert_eq!(stored.place().1 as u64, stored.bytes());
    }

    #[test]
    fn no_rows_come_back_as_none() {
        for dtype in [DType::F32, DType::Bf16] {
            let back = Stored::encode(&random(&[0, 256], dtype)).decode();
            assert_eq!((back.shape(), back.dtype()), (&[0, 256][..], dtype));
        }
    }

    #[test]
    #[should_panic(expected = "whole numbers")]
    fn whole_numbers_are_not_stored() {
        Stored::encode(&Tensor::from_i32(&[1, 2], vec![1, 2]));
    }

    #[test]
    #[should_panic(expected = "no rows to store")]
    fn a_vector_is_not_stored() {
        Stored::encode(&Tensor::from_f32(&[2], vec![1.0, 2.0]));
    }
}
