//! What is there: driver, devices, libraries. Nothing here panics, whatever is missing.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
};

use cudarc::{
    cublaslt,
    driver::{result, sys},
    nvrtc,
};

use super::{DeviceError, error::Doing, nccl, program::HOPPER};

/// The oldest driver that has all functions we call: CUDA 12.8.
const OLDEST_DRIVER: i32 = 12_080;

/// Functions of the driver that the device layer calls, and cudarc would panic without.
const NEEDED: [&str; 35] = [
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// A GPU that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its number, as CUDA counts.
    pub ordinal: usize,
    /// As the driver names it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory: u64,
    /// Multiprocessors, each of which runs blocks of its own.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block can ask for.
    pub shared_memory: u32,
    /// CUDA version of the driver: 1000 times the major version and 10 times the minor.
    pub driver: i32,
}

impl Found {
    /// What NVRTC calls it, as `sm_80`, or [`HOPPER`], with all that no other device has.
    pub fn architecture(&self) -> String {
        if self.capability == (9, 0) {
            return HOPPER.into();
        }
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }
}

/// A library beside the driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Library {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Its version, or why it cannot be used.
    pub version: Result<String, DeviceError>,
}

/// Lists the GPUs that can be used.
///
/// # Errors
///
/// [`DeviceError`] with what is missing: the driver, a device, or one that is new enough.
pub fn probe() -> Result<Vec<Found>, DeviceError> {
    // SAFETY: loading the driver's library runs its initialisers, as every CUDA program does.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::NoDriver);
    }
    let devices = guarded("the NVIDIA driver", devices)??;
    match devices.iter().find(|found| 8 <= found.capability.0) {
        Some(_) => Ok(devices.into_iter().filter(|found| 8 <= found.capability.0).collect()),
        None => {
            let found = devices.into_iter().next().ok_or(DeviceError::NoDevice)?;
            Err(DeviceError::OldDevice { name: found.name, capability: found.capability })
        }
    }
}

/// NVRTC and cuBLASLt, which every GPU needs, and NCCL, which several need.
pub fn libraries() -> [Library; 3] {
    [
        Library {
            name: "NVRTC",
            purpose: "compiles our kernels for the device",
            version: nvrtc_version().map(|(major, minor)| format!("{major}.{minor}")),
        },
        Library { name: "cuBLASLt", purpose: "multiplies matrices", version: cublaslt_version() },
        Library {
            name: "NCCL",
            purpose: "carries messages between GPUs, and one alone needs none",
            version: nccl::version(),
        },
    ]
}

/// Version of NVRTC, major and minor.
pub(crate) fn nvrtc_version() -> Result<(i32, i32), DeviceError> {
    const LIBRARY: &str = "NVRTC";
    // SAFETY: loading the library runs its initialisers, which do nothing but set it up.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(DeviceError::NoLibrary { library: LIBRARY, package: "nvidia-cuda-nvrtc" });
    }
    guarded(LIBRARY, || {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the pointers are those of two whole numbers.
        unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) };
        (major, minor)
    })
}

pub(crate) fn cublaslt_version() -> Result<String, DeviceError> {
    const LIBRARY: &str = "cuBLASLt";
    // SAFETY: loading the library runs its initialisers, which do nothing but set it up.
    if !unsafe { cublaslt::sys::is_culib_present() } {
        return Err(DeviceError::NoLibrary { library: LIBRARY, package: "nvidia-cublas" });
    }
    // SAFETY: the function takes nothing and returns a number.
    let code = guarded(LIBRARY, || unsafe { cublaslt::sys::cublasLtGetVersion() })?;
    Ok(format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100))
}

fn devices() -> Result<Vec<Found>, DeviceError> {
    match result::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            return Err(DeviceError::NoDevice);
        }
        other => other.doing("starting the NVIDIA driver")?,
    }
    let mut driver = 0;
    // SAFETY: the pointer is that of a whole number.
    unsafe { sys::cuDriverGetVersion(&mut driver) }.result().doing("asking for its version")?;
    if driver < OLDEST_DRIVER {
        return Err(DeviceError::OldDriver { found: driver });
    }
    for name in NEEDED {
        // SAFETY: the library is the driver's; what is found is looked at and not called.
        let symbol = unsafe { sys::culib().get::<*const ()>(name.as_bytes()) };
        if symbol.is_err() {
            let (library, cause) = ("the NVIDIA driver", format!("it lacks {name}"));
            return Err(DeviceError::BrokenLibrary { library, cause });
        }
    }
    let count = result::device::get_count().doing("counting the GPUs")?;
    if count == 0 {
        return Err(DeviceError::NoDevice);
    }
    (0..count).map(|ordinal| described(ordinal, driver)).collect()
}

fn described(ordinal: i32, driver: i32) -> Result<Found, DeviceError> {
    use sys::CUdevice_attribute as Attribute;
    let device = result::device::get(ordinal).doing("asking for a GPU")?;
    let number = |which: Attribute| {
        // SAFETY: the device was got from the driver.
        let value = unsafe { result::device::get_attribute(device, which) };
        value.map(|value| value as u32).doing("asking a GPU for its extents")
    };
    Ok(Found {
        ordinal: ordinal as usize,
        name: result::device::get_name(device).doing("asking a GPU for its name")?,
        capability: (
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: the device was got from the driver.
        memory: unsafe { result::device::total_mem(device) }.doing("asking for its memory")? as u64,
        multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_memory: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        driver,
    })
}

/// Turns a panic, which is how cudarc says that a function is missing, into an error.
fn guarded<T>(library: &'static str, work: impl FnOnce() -> T) -> Result<T, DeviceError> {
    static HOOK: Mutex<()> = Mutex::new(());
    let _one_by_one = HOOK.lock();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        DeviceError::BrokenLibrary { library, cause: text.unwrap_or_default() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_missing_is_said_and_nothing_panics() {
        match probe() {
            Ok(found) => assert!(!found.is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        for library in libraries() {
            let text = library.version.map_err(|error| error.to_string());
            assert!(!text.unwrap_or_else(|text| text).is_empty(), "{}", library.name);
        }
    }

    #[test]
    fn a_missing_function_is_an_error() {
        let error = guarded::<()>("it", || panic!("Missing symbol x")).unwrap_err();
        assert_eq!(error.to_string(), "it cannot be used, install it anew: Missing symbol x");
    }
}
