//! Blocks of bf16 matrix products on the tile registers of Intel's AMX.
//!
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, the chapter on AMX.
//! Written in assembly, since the intrinsics of these instructions are not stable. The order of
//! the sums follows from the extents alone, so equal calls give equal bits.

#[cfg(all(test, target_os = "linux"))]
pub(super) mod emulate;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count, _xgetbv},
    },
    cell::Cell,
    marker::PhantomData,
    sync::OnceLock,
};

use half::bf16;

/// Whether [`Tiles`] can be configured on this thread.
///
/// The first call asks processor and system; the answer is remembered.
pub(super) fn is_available() -> bool {
    #[cfg(all(test, target_os = "linux"))]
    if emulate::is_installed() {
        return true;
    }
    is_real()
}

/// Whether the machine has AMX and this process may use it.
fn is_real() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| processor_has_tiles() && system_saves_tiles() && may_use_tiles())
}

/// Leaf 7 of cpuid names tiles and their bf16 products.
fn processor_has_tiles() -> bool {
    const TILES: u32 = 1 << 24;
    const BF16: u32 = 1 << 22;
    7 <= __cpuid(0).eax && __cpuid_count(7, 0).edx & (TILES | BF16) == TILES | BF16
}

/// XCR0 names the states that the system saves when it changes threads.
fn system_saves_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const CONFIGURATION: u64 = 1 << 17;
    const DATA: u64 = 1 << 18;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: OSXSAVE says that programs may execute xgetbv.
    let saved = unsafe { _xgetbv(0) };
    saved & (CONFIGURATION | DATA) == CONFIGURATION | DATA
}

/// Linux gives a process the 8 KiB of tiles only on request, for all of its threads.
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call touches no memory of the process; a kernel that does not know it returns
    // an error. It overwrites rax, rcx and r11 alone.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// How other systems are asked is not known here.
#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles of palette 1 are 16 rows of 64 bytes, the most there can be.
static WHOLE_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

thread_local! {
    /// Whether a [`Tiles`] lives on this thread.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

/// While one lives, the tiles of its thread are configured: 0 to 3 are sums, 4 and 5 hold `a`,
/// 6 and 7 hold `b`.
///
/// Dropped after each product, since a thread with tiles in use takes longer to be switched.
pub(super) struct Tiles {
    /// The configuration is the thread's, so this can be neither sent nor shared.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Takes the tiles of the calling thread.
    ///
    /// # Panics
    ///
    /// If AMX is not available, or the thread has a [`Tiles`] already.
    pub(super) fn configure() -> Self {
        assert!(is_available(), "this machine has no AMX");
        assert!(!IN_USE.replace(true), "the tiles of this thread are in use");
        // SAFETY: AMX is available, and the 64 bytes are a legal configuration.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                configuration = in(reg) &raw const WHOLE_TILES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
        Tiles { thread: PhantomData }
    }

    /// `c = a b` or `c += a b`, where `c` is 32 x 32 and the depth is `blocks` times 32.
    ///
    /// A block of `b` holds 32 values of each of 32 columns: for columns 0 to 15 and then for
    /// columns 16 to 31 a tile `[pair of rows][column][2]` of 512 values. With no blocks the
    /// product is zero. Values and sums too small for a normal f32 count as zero.
    ///
    /// # Safety
    ///
    /// - `a` points to 32 rows of `32 * blocks` values, their beginnings `stride` values apart;
    /// - `b` points to `1024 * blocks` values;
    /// - `c` points to 32 rows of 32 values, their beginnings `c_stride` values apart, that
    ///   nobody else reads or writes during the call and that overlap neither `a` nor `b`.
    #[expect(clippy::too_many_arguments, reason = "three matrices, two of them strided")]
    pub(super) unsafe fn block(
        &self,
        blocks: usize,
        a: *const bf16,
        stride: usize,
        b: *const bf16,
        c: *mut f32,
        c_stride: usize,
        add: bool,
    ) {
        // SAFETY: the tiles are configured while `self` lives, and the caller vouches for the
        // memory: row `i` of `a` is read at `i * stride`, 32 values for each block; 1024 values
        // of `b` for each block; row `i` of `c` is read and written at `i * c_stride`.
        unsafe {
            asm!(
                "test {add}, {add}",
                "jz 2f",
                "tileloadd tmm0, [{c} + {c_stride}]",
                "tileloadd tmm1, [{c} + {c_stride} + 64]",
                "tileloadd tmm2, [{lower_c} + {c_stride}]",
                "tileloadd tmm3, [{lower_c} + {c_stride} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "test {blocks}, {blocks}",
                "jz 5f",
                // Loads stand between the products, so that neither waits for all of the other.
                "4:",
                "tileloadd tmm4, [{a} + {stride}]",
                "tileloadd tmm6, [{b} + {b_stride}]",
                "tileloadd tmm7, [{b} + {b_stride} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{lower_a} + {stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 64",
                "add {lower_a}, 64",
                "add {b}, 2048",
                "dec {blocks}",
                "jnz 4b",
                "5:",
                "tilestored [{c} + {c_stride}], tmm0",
                "tilestored [{c} + {c_stride} + 64], tmm1",
                "tilestored [{lower_c} + {c_stride}], tmm2",
                "tilestored [{lower_c} + {c_stride} + 64], tmm3",
                add = in(reg) usize::from(add),
                blocks = inout(reg) blocks => _,
                a = inout(reg) a => _,
                // Wrapping, since without blocks `a` may point anywhere.
                lower_a = inout(reg) a.wrapping_add(16 * stride) => _,
                stride = in(reg) size_of::<bf16>() * stride,
                b = inout(reg) b => _,
                b_stride = in(reg) 64_usize,
                c = in(reg) c,
                lower_c = in(reg) c.add(16 * c_stride),
                c_stride = in(reg) size_of::<f32>() * c_stride,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: AMX is available where a `Tiles` was made, and nobody else uses the thread's
        // tiles, since there is one at a time.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
        IN_USE.set(false);
    }
}
