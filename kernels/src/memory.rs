//! The allocator of every program that uses this crate.
//!
//! A step allocates and frees the same tensors over and over. The allocator of the C library gives
//! large ones back to the system each time and gets them anew page by page, which was 8 to 13 % of
//! a step; mimalloc keeps them.

// A sanitizer sees the C library's allocator alone.
#[cfg(not(system_allocator))]
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Freed memory stays with the process for the next step and never goes back to the system; by
/// itself mimalloc gives it back after a while. To be called first in `main`.
pub fn keep_freed() {
    /// `mi_option_purge_delay`, in milliseconds; the same number in versions 2 and 3.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const NEVER: std::ffi::c_long = -1;
    // SAFETY: the function writes one number of a table; that it is called before there are other
    // threads is all that it asks for, and even then the worst is a delay read half-way.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER) };
}
