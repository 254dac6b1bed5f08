//! How cuBLASLt computes a product: descriptions of it and of its matrices, and the way it chose.

use cudarc::cublaslt::{result, sys};

use super::WORKSPACE_BYTES;
use crate::cuda::program::Format;

/// cuBLASLt, started.
#[derive(Debug)]
pub(super) struct Handle(pub(super) sys::cublasLtHandle_t);

/// What decides about a plan.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    /// Rows, depth, columns.
    pub(super) extents: (usize, usize, usize),
    /// Of `a`, `b` and `c`.
    pub(super) strides: (usize, usize, usize),
    /// Whether `a` and `b` are transposes of what is stored.
    pub(super) turned: (bool, bool),
    /// Of the factors and of the output.
    pub(super) formats: (Format, Format),
    /// Bytes that the addresses of `a`, `b` and `c` are multiples of, at most 256.
    pub(super) alignment: (u32, u32, u32),
}

/// Descriptions of a product and of its matrices, and the way that cuBLASLt has chosen.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) operation: sys::cublasLtMatmulDesc_t,
    pub(super) a: sys::cublasLtMatrixLayout_t,
    pub(super) b: sys::cublasLtMatrixLayout_t,
    pub(super) c: sys::cublasLtMatrixLayout_t,
    pub(super) algorithm: Option<sys::cublasLtMatmulAlgo_t>,
}

// SAFETY: a handle of cuBLASLt may be used from every thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
// SAFETY: descriptions are only read once they are made, and belong to no thread.
unsafe impl Send for Plan {}

impl Plan {
    /// Describes `c^T = b^T a^T`, column-major, and asks cuBLASLt how to compute it.
    pub(super) fn new(handle: &Handle, key: Key) -> Result<Self, result::CublasError> {
        let Key { extents: (rows, depth, cols), strides, turned, formats, .. } = key;
        let layout = |format, stored: (usize, usize), stride: usize| {
            // Of a single row the stride does not matter, but cuBLASLt looks at it.
            let (rows, cols, stride) = (stored.0 as u64, stored.1 as u64, stride.max(stored.1));
            result::create_matrix_layout(kind(format), cols, rows, stride as i64)
        };
        let stored = |is_turned, rows, cols| if is_turned { (cols, rows) } else { (rows, cols) };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let mut plan = Plan {
            operation: result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F)?,
            a: std::ptr::null_mut(),
            b: std::ptr::null_mut(),
            c: std::ptr::null_mut(),
            algorithm: None,
        };
        plan.a = layout(formats.0, stored(turned.0, rows, depth), strides.0)?;
        plan.b = layout(formats.0, stored(turned.1, depth, cols), strides.1)?;
        plan.c = layout(formats.1, (rows, cols), strides.2)?;
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // The factors have changed places.
        for (which, is_turned) in [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, turned.1),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, turned.0),
        ] {
            let turn = i32::from(is_turned);
            let (value, bytes) = ((&raw const turn).cast(), size_of::<i32>());
            // SAFETY: the description has just been made, the value is a whole number.
            unsafe { result::set_matmul_desc_attribute(plan.operation, which, value, bytes)? };
        }
        plan.algorithm = Some(plan.chosen(handle, key)?);
        Ok(plan)
    }

    fn chosen(
        &self,
        handle: &Handle,
        key: Key,
    ) -> Result<sys::cublasLtMatmulAlgo_t, result::CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Preference(result::create_matmul_pref()?);
        let bytes = WORKSPACE_BYTES as u64;
        let (a, b, c) = key.alignment;
        let most = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: the preference has just been made, the value is a number of eight bytes.
        unsafe {
            let value = (&raw const bytes).cast();
            result::set_matmul_pref_attribute(preference.0, most, value, size_of::<u64>())?;
        }
        for (which, alignment) in [
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c),
        ] {
            let (value, bytes) = ((&raw const alignment).cast(), size_of::<u32>());
            // SAFETY: the preference has just been made, the value is a number of four bytes.
            unsafe { result::set_matmul_pref_attribute(preference.0, which, value, bytes)? };
        }
        // SAFETY: all descriptions live.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                handle.0,
                self.operation,
                self.b,
                self.a,
                self.c,
                self.c,
                preference.0,
            )?
        };
        Ok(found.algo)
    }
}

fn kind(format: Format) -> sys::cudaDataType {
    match format {
        Format::F32 => sys::cudaDataType::CUDA_R_32F,
        Format::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: nobody else has it. A failure leaks it.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: nobody else has the descriptions, and products copy what they need of them when
        // they are queued.
        unsafe {
            for layout in [self.a, self.b, self.c].into_iter().filter(|layout| !layout.is_null()) {
                let _ = result::destroy_matrix_layout(layout);
            }
            let _ = result::destroy_matmul_desc(self.operation);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}
