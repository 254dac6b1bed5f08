//! NCCL's library: found when it is first asked for, and its functions.
//!
//! Types and constants are those of cudarc's `nccl` module. The functions are looked up here, since
//! cudarc looks for `libnccl.so`, and what NVIDIA's packages bring is called `libnccl.so.2`; so a
//! missing function is an error, too, where cudarc's would panic.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::OnceLock,
};

use cudarc::{
    driver::sys::CUstream,
    nccl::sys::{ncclComm_t, ncclConfig_t, ncclResult_t, ncclUniqueId},
};
use libloading::Library;

use super::super::DeviceError;

const NAME: &str = "NCCL";

/// The oldest NCCL that takes a configuration of more fields than it knows: 2.18.
const OLDEST: c_int = 21_800;

/// What NCCL answers; a number, since newer libraries may have more answers than we know.
pub(super) type Status = u32;

pub(super) const SUCCESS: Status = ncclResult_t::ncclSuccess as Status;
pub(super) const CUDA_ERROR: Status = ncclResult_t::ncclUnhandledCudaError as Status;
pub(super) const IN_PROGRESS: Status = ncclResult_t::ncclInProgress as Status;

/// Numbers of formats and of sums, for the same reason.
type Kind = u32;

type Ask<T> = unsafe extern "C" fn(*mut T) -> Status;
type Call = unsafe extern "C" fn() -> Status;
type OfCommunicator = unsafe extern "C" fn(ncclComm_t) -> Status;
type ReadTo<At> = unsafe extern "C" fn(At, usize, Kind, c_int, ncclComm_t, CUstream) -> Status;

/// NCCL's functions, as `nccl.h` declares them.
pub(super) struct Functions {
    version: Ask<c_int>,
    pub(super) unique_id: Ask<ncclUniqueId>,
    pub(super) join: unsafe extern "C" fn(
        *mut ncclComm_t,
        c_int,
        ncclUniqueId,
        c_int,
        *mut ncclConfig_t,
    ) -> Status,
    pub(super) state: unsafe extern "C" fn(ncclComm_t, *mut Status) -> Status,
    pub(super) finalize: OfCommunicator,
    pub(super) destroy: OfCommunicator,
    pub(super) abort: OfCommunicator,
    error_text: unsafe extern "C" fn(Status) -> *const c_char,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
    pub(super) group_start: Call,
    pub(super) group_end: Call,
    pub(super) send: ReadTo<*const c_void>,
    pub(super) receive: ReadTo<*mut c_void>,
    pub(super) all_gather: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        Kind,
        ncclComm_t,
        CUstream,
    ) -> Status,
    pub(super) reduce_scatter: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        Kind,
        Kind,
        ncclComm_t,
        CUstream,
    ) -> Status,
    /// Kept open, since the functions are in it.
    _library: Library,
}

/// The functions, or why there are none; the same answer every time.
pub(super) fn functions() -> Result<&'static Functions, DeviceError> {
    static FUNCTIONS: OnceLock<Result<Functions, DeviceError>> = OnceLock::new();
    FUNCTIONS.get_or_init(Functions::load).as_ref().map_err(DeviceError::clone)
}

impl Functions {
    fn load() -> Result<Self, DeviceError> {
        let names = ["libnccl.so.2", "libnccl.so"];
        // SAFETY: loading the library runs its initialisers, which do nothing but set it up.
        let library = names.into_iter().find_map(|name| unsafe { Library::new(name) }.ok());
        let package = "nvidia-nccl-cu13";
        let library = library.ok_or(DeviceError::NoLibrary { library: NAME, package })?;
        // SAFETY: each field has the type that `nccl.h` declares its function with, of which none
        // has changed since version 2.18.
        let functions = unsafe {
            Functions {
                version: symbol(&library, "ncclGetVersion")?,
                unique_id: symbol(&library, "ncclGetUniqueId")?,
                join: symbol(&library, "ncclCommInitRankConfig")?,
                state: symbol(&library, "ncclCommGetAsyncError")?,
                finalize: symbol(&library, "ncclCommFinalize")?,
                destroy: symbol(&library, "ncclCommDestroy")?,
                abort: symbol(&library, "ncclCommAbort")?,
                error_text: symbol(&library, "ncclGetErrorString")?,
                last_error: symbol(&library, "ncclGetLastError")?,
                group_start: symbol(&library, "ncclGroupStart")?,
                group_end: symbol(&library, "ncclGroupEnd")?,
                send: symbol(&library, "ncclSend")?,
                receive: symbol(&library, "ncclRecv")?,
                all_gather: symbol(&library, "ncclAllGather")?,
                reduce_scatter: symbol(&library, "ncclReduceScatter")?,
                _library: library,
            }
        };
        if functions.code() < OLDEST {
            let cause = format!("it is {}, expected 2.18 or newer", functions.version());
            return Err(DeviceError::BrokenLibrary { library: NAME, cause });
        }
        Ok(functions)
    }

    fn code(&self) -> c_int {
        let mut code = 0;
        // SAFETY: the pointer is that of a whole number.
        unsafe { (self.version)(&mut code) };
        code
    }

    /// As `2.30.7`.
    pub(super) fn version(&self) -> String {
        let code = self.code();
        format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100)
    }

    /// What an answer means, and what NCCL says beside it.
    pub(super) fn text(&self, status: Status, handle: ncclComm_t) -> String {
        // SAFETY: NCCL returns texts that end with a zero and stay; it takes any number, and looks
        // at no communicator for its last error.
        let (meaning, last) =
            unsafe { (read((self.error_text)(status)), read((self.last_error)(handle))) };
        if last.is_empty() { meaning } else { format!("{meaning}, {}", last.trim_end()) }
    }
}

/// # Safety
///
/// `F` is the type of the function.
unsafe fn symbol<F: Copy>(library: &Library, name: &str) -> Result<F, DeviceError> {
    // SAFETY: the caller says so.
    match unsafe { library.get::<F>(name.as_bytes()) } {
        Ok(symbol) => Ok(*symbol),
        Err(_) => {
            let cause = format!("it lacks {name}");
            Err(DeviceError::BrokenLibrary { library: NAME, cause })
        }
    }
}

/// # Safety
///
/// The text ends with a zero, or the pointer is null.
unsafe fn read(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller says so.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
