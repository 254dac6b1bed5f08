//! Matrix products `c = alpha a b` and `c += alpha a b` by cuBLASLt, row-major, in F32 and BF16.
//!
//! Factors of BF16 are multiplied as such on tensor cores and summed in F32; F32 is multiplied in
//! full (`COMPUTE_32F`, never TF32). Unlike on the CPU, a row's bits may depend on how many rows
//! there are, since cuBLASLt chooses a kernel by the extents; equal calls give equal bits. Products
//! of an expert layer are in [`super::grouped`].

mod plan;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use cudarc::cublaslt::result;

use self::plan::{Handle, Key, Plan};
use super::{Arena, Buffer, DeviceError, Float, Stream, View, ViewMut, probe::cublaslt_version};
use crate::gemm::Output;

/// Bytes that cuBLASLt may use beside the matrices; NVIDIA's advice for Hopper.
pub const WORKSPACE_BYTES: usize = 32 << 20;

/// Plans that are kept; with more extents than that, all are made anew.
const PLANS: usize = 4096;

/// A matrix to read, anywhere in a view.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, N> {
    values: View<'a, N>,
    rows: usize,
    cols: usize,
    stride: usize,
    is_turned: bool,
}

/// A matrix to write.
#[derive(Debug)]
pub struct MatrixMut<'a, N> {
    values: ViewMut<'a, N>,
    rows: usize,
    cols: usize,
    stride: usize,
}

/// Products on one stream; one after the other, since they share a workspace.
#[derive(Debug)]
pub struct Products {
    handle: Handle,
    stream: Stream,
    workspace: Mutex<Buffer<u8>>,
    plans: Mutex<BTreeMap<Key, Plan>>,
}

impl<'a, N> Matrix<'a, N> {
    /// A matrix whose rows follow each other.
    ///
    /// # Panics
    ///
    /// If the view is too short.
    pub fn new(values: View<'a, N>, rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// A matrix whose rows begin `stride` elements apart.
    ///
    /// # Panics
    ///
    /// If the view is too short or the rows overlap.
    pub fn strided(values: View<'a, N>, rows: usize, cols: usize, stride: usize) -> Self {
        assert_fits(values.len(), rows, cols, stride);
        Matrix { values, rows, cols, stride, is_turned: false }
    }

    /// The same values with rows and columns exchanged; nothing moves.
    pub fn transposed(self) -> Self {
        let Matrix { rows, cols, is_turned, .. } = self;
        Matrix { rows: cols, cols: rows, is_turned: !is_turned, ..self }
    }
}

impl<'a, N> MatrixMut<'a, N> {
    /// A matrix whose rows follow each other.
    ///
    /// # Panics
    ///
    /// If the view is too short.
    pub fn new(values: ViewMut<'a, N>, rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// A matrix whose rows begin `stride` elements apart.
    ///
    /// # Panics
    ///
    /// If the view is too short or the rows overlap.
    pub fn strided(values: ViewMut<'a, N>, rows: usize, cols: usize, stride: usize) -> Self {
        assert_fits(values.len(), rows, cols, stride);
        MatrixMut { values, rows, cols, stride }
    }
}

fn assert_fits(len: usize, rows: usize, cols: usize, stride: usize) {
    assert!(cols <= stride || rows <= 1, "rows of {cols} overlap at stride {stride}");
    let end = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
    assert!(end <= len, "[{rows}, {cols}] at row stride {stride} in {len} elements");
}

/// The largest power of two, at most 16, that divides an address: what vectors of elements need.
/// More would let the bits of a product depend on where its rows lie among others.
fn alignment(at: u64) -> u32 {
    1 << at.trailing_zeros().min(4)
}

impl Products {
    /// For a stream; [`WORKSPACE_BYTES`] of the arena are taken.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoLibrary`] without cuBLASLt, [`DeviceError::OutOfMemory`] if the arena is
    /// full.
    pub fn new(stream: &Stream, arena: &Arena) -> Result<Self, DeviceError> {
        cublaslt_version()?;
        stream.device().bind()?;
        let handle = result::create_handle().map_err(|error| DeviceError::Driver {
            action: "starting cuBLASLt",
            cause: error.to_string(),
        })?;
        let (handle, stream) = (Handle(handle), stream.clone());
        let workspace = Mutex::new(arena.buffer(WORKSPACE_BYTES)?);
        Ok(Products { handle, stream, workspace, plans: Mutex::default() })
    }

    /// Queues `c = alpha a b`, or `c += alpha a b`; without depth the product is zero.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Product`] with what cuBLASLt says.
    ///
    /// # Panics
    ///
    /// If the extents do not fit each other.
    pub fn product<N: Float, C: Float>(
        &self,
        c: MatrixMut<'_, C>,
        output: Output,
        alpha: f32,
        a: Matrix<'_, N>,
        b: Matrix<'_, N>,
    ) -> Result<(), DeviceError> {
        let beta = if output == Output::Add { 1.0 } else { 0.0 };
        self.combined(c, beta, alpha, a, b)
    }

    /// Queues `c = beta c + alpha a b`, such as the polynomial of a Newton-Schulz step.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Product`] with what cuBLASLt says.
    ///
    /// # Panics
    ///
    /// If the extents do not fit each other.
    pub fn combined<N: Float, C: Float>(
        &self,
        mut c: MatrixMut<'_, C>,
        beta: f32,
        alpha: f32,
        a: Matrix<'_, N>,
        b: Matrix<'_, N>,
    ) -> Result<(), DeviceError> {
        let (rows, depth, cols) = (a.rows, a.cols, b.cols);
        assert_eq!((c.rows, c.cols, b.rows), (rows, cols, depth), "extents of a product");
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        if depth == 0 {
            return self.without_depth(&mut c, beta);
        }
        let extents = (rows, depth, cols);
        let key = Key {
            extents,
            strides: (a.stride, b.stride, c.stride),
            turned: (a.is_turned, b.is_turned),
            formats: (N::FORMAT, C::FORMAT),
            alignment: (
                alignment(a.values.at()),
                alignment(b.values.at()),
                alignment(c.values.at()),
            ),
        };
        self.stream.device().bind()?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() == PLANS && !plans.contains_key(&key) {
            plans.clear();
        }
        let refused = |error: result::CublasError| {
            let cause = error.to_string();
            DeviceError::Product { extents, cause }
        };
        let plan = match plans.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Plan::new(&self.handle, key).map_err(refused)?)
            }
        };
        let (a, b, c) = (a.values.at(), b.values.at(), c.values.at());
        self.queue(plan, alpha, beta, a, b, c).map_err(refused)
    }

    /// What is left of a product without depth: `beta c`, of which zero and one are asked for.
    fn without_depth<C: Float>(
        &self,
        c: &mut MatrixMut<'_, C>,
        beta: f32,
    ) -> Result<(), DeviceError> {
        assert!(beta == 0.0 || beta == 1.0, "{beta} c without a product");
        let rows = if beta == 0.0 { c.rows } else { 0 };
        (0..rows).try_for_each(|row| {
            let from = row * c.stride;
            self.stream.fill(c.values.again().part(from..from + c.cols), 0)
        })
    }

    fn queue(
        &self,
        plan: &Plan,
        alpha: f32,
        beta: f32,
        a: u64,
        b: u64,
        c: u64,
    ) -> Result<(), result::CublasError> {
        let algorithm = plan.algorithm.as_ref().expect("a plan is kept once it has one");
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace = workspace.view_mut();
        // SAFETY: the descriptions live as long as the plan; `combined` has checked that matrices
        // of these extents lie within the views; the factors change places, as the output is
        // written as its transpose, column-major; products on the stream follow each other, so
        // they can share the workspace.
        unsafe {
            result::matmul(
                self.handle.0,
                plan.operation,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                b as *const _,
                plan.b,
                a as *const _,
                plan.a,
                c as *const _,
                plan.c,
                c as *mut _,
                plan.c,
                algorithm,
                workspace.at() as *mut _,
                workspace.len(),
                self.stream.raw().cast(),
            )
        }
    }
}
