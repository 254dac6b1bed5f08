//! What a device can refuse; each error is a sentence that says what to do.

use std::time::Duration;

use cudarc::driver::DriverError;

/// Why a device cannot be used, or what it refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// The driver's library cannot be loaded.
    #[error("no NVIDIA driver: libcuda.so.1 was not found; install the driver, or run on the CPU")]
    NoDriver,
    /// The driver is older than what the calls need.
    #[error(
        "the NVIDIA driver is for CUDA {}.{}, expected 12.8 or newer (R570); update the driver",
        found / 1000, found % 1000 / 10
    )]
    OldDriver {
        /// As the driver says it: 1000 times the major version and 10 times the minor.
        found: i32,
    },
    /// The driver finds no device.
    #[error(
        "the NVIDIA driver finds no GPU; see `nvidia-smi`, and CUDA_VISIBLE_DEVICES, which may hide \
         it"
    )]
    NoDevice,
    /// There are devices, but not this one.
    #[error("there is no GPU {ordinal}, the driver finds {count}")]
    NoSuchDevice {
        /// The one that was asked for, from 0.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The device lacks BF16 on tensor cores.
    #[error(
        "{name} has compute capability {}.{}, expected 8.0 (A100) or newer; run on the CPU",
        capability.0, capability.1
    )]
    OldDevice {
        /// Of the product.
        name: String,
        /// Major and minor.
        capability: (u32, u32),
    },
    /// A library beside the driver cannot be loaded.
    #[error(
        "{library} was not found; `pip install {package}` brings it, and its folder has to be on \
         LD_LIBRARY_PATH"
    )]
    NoLibrary {
        /// Its name.
        library: &'static str,
        /// What brings it.
        package: &'static str,
    },
    /// A library lacks a function, so it is too old or damaged.
    #[error("{library} cannot be used, install it anew: {cause}")]
    BrokenLibrary {
        /// Its name.
        library: &'static str,
        /// As the loader says it.
        cause: String,
    },
    /// NVRTC refused a source.
    #[error("{program} does not compile for {architecture}: {log}")]
    Compile {
        /// Source and format.
        program: String,
        /// As `sm_80`.
        architecture: String,
        /// What NVRTC says.
        log: String,
    },
    /// Neither the device nor an arena has so many bytes left.
    #[error(
        "{place} has {free} of {total} bytes free, {asked} were asked for; a smaller microbatch, \
         recompute or offload in the plan hold less"
    )]
    OutOfMemory {
        /// The device or the arena.
        place: &'static str,
        /// Bytes that were asked for.
        asked: u64,
        /// Bytes that nobody holds, not always in one piece.
        free: u64,
        /// Bytes of all.
        total: u64,
    },
    /// A block of a kernel needs more shared memory than the device gives it.
    #[error("{kernel} needs {needed} bytes of shared memory a block, the device has {limit}")]
    SharedMemory {
        /// Its name.
        kernel: &'static str,
        /// Bytes that it needs.
        needed: u32,
        /// Bytes that a block can have.
        limit: u32,
    },
    /// The driver refused a call.
    #[error("{action} failed: {cause}")]
    Driver {
        /// What was asked for.
        action: &'static str,
        /// As the driver names it.
        cause: String,
    },
    /// cuBLASLt refused a product.
    #[error(
        "product [{}, {}] x [{}, {}] failed in cuBLASLt: {cause}",
        extents.0, extents.1, extents.1, extents.2
    )]
    Product {
        /// Rows, depth and columns.
        extents: (usize, usize, usize),
        /// As cuBLASLt names it.
        cause: String,
    },
    /// NCCL refused a message or broke it off.
    #[error("{action} failed on rank {rank} of {ranks}, which left its communicator: {cause}")]
    Message {
        /// What was asked for.
        action: &'static str,
        /// Whose call it was.
        rank: usize,
        /// Of the communicator.
        ranks: usize,
        /// As NCCL says it.
        cause: String,
    },
    /// The other side of a message was not there in time.
    #[error(
        "{action} took longer than {limit:?} on rank {rank} of {ranks}, which left its \
         communicator; a rank may have ended, or not asked for its part"
    )]
    Late {
        /// What was asked for.
        action: &'static str,
        /// Whose call it was.
        rank: usize,
        /// Of the communicator.
        ranks: usize,
        /// How long it may take.
        limit: Duration,
    },
}

/// Says what a call of the driver was for.
pub(crate) trait Doing<T> {
    /// Names the action of an error.
    fn doing(self, action: &'static str) -> Result<T, DeviceError>;
}

impl<T> Doing<T> for Result<T, DriverError> {
    fn doing(self, action: &'static str) -> Result<T, DeviceError> {
        self.map_err(|error| {
            let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
            DeviceError::Driver { action, cause: name.unwrap_or_else(|_| format!("{:?}", error.0)) }
        })
    }
}
