//! NVIDIA GPUs: what is there, memory, streams, our kernels, products.
//!
//! The driver, NVRTC and cuBLASLt are loaded when they are asked for, so one ordinary build runs
//! with and without them; [`probe`] says what is missing. Every kernel of this crate has a CUDA
//! source beside it (`rms_norm.cu` beside `rms_norm.rs`), which NVRTC compiles for the device
//! that was found ([`program`]), and a function here of the name, arguments and meaning of its CPU
//! twin. Calls queue work on a [`Stream`] and return; results may be read after a
//! [`Stream::wait`] or behind an [`Event`]. [`nccl`] carries messages between GPUs.
//!
//! All of this has run on an emulation of the driver (`tests/shim`) and, as of now, on no GPU.

mod arena;
pub mod attention;
mod compile;
pub mod cross_entropy;
mod device;
pub mod elementwise;
pub mod embedding;
mod error;
pub mod fp8;
mod gpu;
pub mod grouped;
mod launch;
pub mod nccl;
pub mod newton_schulz;
pub mod permute;
mod pieces;
mod probe;
pub mod products;
pub mod program;
pub mod reduce;
pub mod rms_norm;
pub mod rope;
pub mod router;
pub mod squares;
mod stream;

pub use self::{
    arena::{Arena, Buffer, Element, Pinned, View, ViewMut},
    compile::{Compiled, Compiler},
    device::Device,
    error::DeviceError,
    gpu::{Gpu, Parked},
    launch::Float,
    pieces::PIECES,
    probe::{Found, Library, libraries, probe},
    stream::{Event, Stream, Streams},
};
