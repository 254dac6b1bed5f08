//! Where tensors live and the work on them is done.

use kernels::cuda::Gpu;

/// The memory that a tensor lies in; its operators run beside it.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// The host's, and the processor.
    #[default]
    Host,
    /// A GPU's, and the GPU.
    Gpu(Gpu),
}

impl Place {
    /// Whether both are the same memory.
    pub fn is(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Host, Place::Host) => true,
            (Place::Gpu(own), Place::Gpu(other)) => own.is(other),
            _ => false,
        }
    }
}
