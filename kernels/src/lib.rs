//! Arithmetic on raw slices: what every operator and optimizer is made of.
//!
//! Slices come in, slices go out; nothing here knows gradients' owners, graphs, ranks or tensors.
//! All matrices are row-major unless a stride says otherwise. Everything runs on the calling
//! thread: actors are the threads. Sums are taken in a fixed order, so equal calls give equal
//! bits, and except for the matrix products the bits do not depend on the processor either.

pub mod adamw;
pub mod attention;
pub mod cast;
pub mod cores;
pub mod cross_entropy;
pub mod cuda;
pub mod embedding;
pub mod exp;
pub mod fp8;
pub mod gemm;
pub mod memory;
pub mod mpi;
pub mod newton_schulz;
pub mod number;
pub mod permute;
pub mod random;
pub mod reduce;
pub mod rms_norm;
pub mod rope;
pub mod router;
pub mod squares;
pub mod swiglu;
mod vector;
