//! One GPU: its context, and the kernels compiled for it.

use std::{
    collections::BTreeMap,
    ffi::CString,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use cudarc::driver::{result, sys};

use super::{Compiled, Compiler, DeviceError, Found, error::Doing, probe, program::Program};

/// Shared memory that a kernel has without asking.
const USUAL_SHARED_BYTES: u32 = 48 * 1024;

/// A GPU that has been opened; clones are the same.
#[derive(Clone, Debug)]
pub struct Device {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    found: Found,
    context: Context,
    compiler: Compiler,
    /// Loaded when first used, and kept until the context goes.
    modules: Mutex<BTreeMap<Program, Module>>,
}

/// The device's primary context, which this holds.
#[derive(Debug)]
struct Context {
    handle: sys::CUcontext,
    device: sys::CUdevice,
}

#[derive(Debug)]
struct Module {
    handle: sys::CUmodule,
    functions: BTreeMap<&'static str, Function>,
}

/// A kernel that can be launched as long as its device is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) handle: sys::CUfunction,
    /// Shared memory that it may be launched with.
    shared_bytes: u32,
}

// SAFETY: the driver's contexts, modules and functions may be used from every thread, and a context
// is made the calling thread's before each use.
unsafe impl Send for Inner {}
// SAFETY: as above; what changes stands behind a lock.
unsafe impl Sync for Inner {}

impl Device {
    /// Opens a GPU; its compiled kernels are kept in `folder`, if there is one.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] with what is missing.
    pub fn open(ordinal: usize, folder: Option<&Path>) -> Result<Self, DeviceError> {
        let all = probe()?;
        let count = all.len();
        let found = all.into_iter().find(|found| found.ordinal == ordinal);
        let found = found.ok_or(DeviceError::NoSuchDevice { ordinal, count })?;
        let compiler = Compiler::new(&found.architecture(), folder)?;
        let device = result::device::get(ordinal as i32).doing("asking for a GPU")?;
        // SAFETY: the device was got from the driver.
        let handle =
            unsafe { result::primary_ctx::retain(device) }.doing("making a context on the GPU")?;
        let context = Context { handle, device };
        let modules = Mutex::default();
        let inner = Arc::new(Inner { found, context, compiler, modules });
        Ok(Device { inner })
    }

    /// What it is.
    pub fn found(&self) -> &Found {
        &self.inner.found
    }

    /// Bytes of its memory: free, and all.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Driver`] if the driver refuses.
    pub fn memory(&self) -> Result<(u64, u64), DeviceError> {
        self.bind()?;
        let (free, total) = result::mem_get_info().doing("asking for free memory")?;
        Ok((free as u64, total as u64))
    }

    /// Compiles programs on all cores and loads them, so that no launch has to wait for it.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Compile`] with what NVRTC says.
    pub fn load(&self, programs: &[Program]) -> Result<(), DeviceError> {
        self.bind()?;
        let mut modules = self.inner.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<Program> =
            programs.iter().copied().filter(|program| !modules.contains_key(program)).collect();
        for (program, compiled) in missing.iter().zip(self.inner.compiler.compile_all(&missing)?) {
            modules.insert(*program, Module::load(&compiled)?);
        }
        Ok(())
    }

    /// Makes the device's context that of the calling thread.
    pub(super) fn bind(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is held as long as the device.
        unsafe { result::ctx::set_current(self.inner.context.handle) }
            .doing("making the context of the GPU current")
    }

    /// A kernel that may be launched with so much shared memory.
    pub(super) fn function(
        &self,
        program: Program,
        name: &'static str,
        shared_bytes: u32,
    ) -> Result<Function, DeviceError> {
        let limit = self.inner.found.shared_memory;
        if limit < shared_bytes {
            let (kernel, needed) = (name, shared_bytes);
            return Err(DeviceError::SharedMemory { kernel, needed, limit });
        }
        let mut modules = self.inner.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = self.module(&mut modules, program)?;
        if let Some(function) = module.functions.get(name)
            && shared_bytes <= function.shared_bytes
        {
            return Ok(*function);
        }
        let symbol = CString::new(name).expect("a kernel's name has no zero");
        // SAFETY: the module is loaded and stays so.
        let handle = unsafe { result::module::get_function(module.handle, symbol) }
            .doing("looking for a kernel")?;
        if USUAL_SHARED_BYTES < shared_bytes {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a loaded module.
            unsafe { result::function::set_function_attribute(handle, most, shared_bytes as i32) }
                .doing("asking for shared memory")?;
        }
        let shared_bytes = shared_bytes.max(USUAL_SHARED_BYTES);
        let function = Function { handle, shared_bytes };
        module.functions.insert(name, function);
        Ok(function)
    }

    fn module<'a>(
        &self,
        modules: &'a mut BTreeMap<Program, Module>,
        program: Program,
    ) -> Result<&'a mut Module, DeviceError> {
        use std::collections::btree_map::Entry;
        let entry = match modules.entry(program) {
            Entry::Occupied(entry) => return Ok(entry.into_mut()),
            Entry::Vacant(entry) => entry,
        };
        Ok(entry.insert(Module::load(&self.inner.compiler.compile(program)?)?))
    }
}

impl Module {
    fn load(compiled: &Compiled) -> Result<Self, DeviceError> {
        // SAFETY: the image is what the compiler made, whole; the driver copies it.
        let handle = unsafe { result::module::load_data(compiled.binary.as_ptr().cast()) }
            .doing("loading kernels")?;
        Ok(Module { handle, functions: BTreeMap::new() })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: all that lives in the context holds the device, so it is gone by now; with the
        // last release the driver unloads the modules.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
