//! The twins of what operators do, for tensors on a GPU: room for the outputs, then launches.
//!
//! A tensor knows its GPU, and an operator runs where its inputs are. A device that refuses a call
//! is lost, so errors are panics here: an actor makes them the step's failure, with their words.

pub(crate) mod attention;
pub(crate) mod loss;
pub(crate) mod optim;
pub(crate) mod products;
pub(crate) mod routing;
pub(crate) mod rows;

use kernels::cuda::{Buffer, DeviceError, Element, Float, Gpu, program::Format};

use crate::{
    DType, Tensor,
    tensor::{Piece, Storage},
};

/// What a call gave, which succeeds as long as the device works.
///
/// # Panics
///
/// With the error, which an actor makes the step's failure.
#[track_caller]
pub(crate) fn done<T>(result: Result<T, DeviceError>) -> T {
    result.unwrap_or_else(|error| std::panic::panic_any(error))
}

/// Room for an output.
pub(crate) fn make<T: Element>(gpu: &Gpu, len: usize) -> Buffer<T> {
    done(gpu.buffer(len))
}

/// So many zeros.
pub(crate) fn zeros<T: Element>(gpu: &Gpu, len: usize) -> Buffer<T> {
    let mut buffer = make(gpu, len);
    done(gpu.stream().fill(buffer.view_mut(), 0));
    buffer
}

/// A tensor of the floats that have been written.
pub(crate) fn floats<N: Float>(gpu: &Gpu, shape: &[usize], values: Buffer<N>) -> Tensor {
    let dtype = match N::FORMAT {
        Format::F32 => DType::F32,
        Format::Bf16 => DType::Bf16,
    };
    tensor(gpu, shape, dtype, values)
}

/// A tensor of the whole numbers that have been written.
pub(crate) fn indices(gpu: &Gpu, shape: &[usize], values: Buffer<i32>) -> Tensor {
    tensor(gpu, shape, DType::I32, values)
}

fn tensor<T: Element>(gpu: &Gpu, shape: &[usize], dtype: DType, values: Buffer<T>) -> Tensor {
    Tensor::stored(shape, dtype, Storage::Gpu(Piece::of(gpu, values)))
}
