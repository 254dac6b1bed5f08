//! Products of F32 in vectors, with fused multiply-add where the processor has it.
//!
//! A panel is `[depth][32 columns]`. A block is `[row][LINE]` if its rows are copied along the
//! depth, `[depth][16 rows]` if across: either way the place of the next number is known when this
//! is compiled.

use super::{
    Values,
    isa::Isa,
    lines::Lines,
    strip::{Strip, Way},
    transpose::turn,
    walk::{Block, Kernel, PANEL, PART, Tile},
};
use crate::vector::vectorised;

/// Distance of the rows of a block: one line more than their depth, so that they do not compete for
/// places in the cache.
const LINE: usize = PART + 16;

/// Distance of depths in a block that is packed across.
const ACROSS: usize = 16;

/// Numbers of a block: enough for either way.
const BLOCK: usize = 16 * LINE;

/// What a function gets: a block, a panel, and whether the tile is written or added to.
#[derive(Clone, Copy)]
struct Factors {
    depth: usize,
    block: *const f32,
    panel: *const f32,
    is_first: bool,
}

/// Multiplies so many rows of a block by a panel.
///
/// # Safety
///
/// The processor has the instructions; block and panel hold what the layout says, the tile its
/// rows.
type Micro = unsafe fn(factors: Factors, tile: *mut f32);

/// The kernel; one function for every number of rows and both ways.
pub(super) struct Wide {
    along: &'static [Micro],
    across: &'static [Micro],
}

/// Whether the processor has all of AVX-512 that is used here.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq")
}

impl Wide {
    /// The functions for these instructions, which the processor has.
    pub(super) fn new(isa: Isa) -> Self {
        let (along, across): (&'static [Micro], &'static [Micro]) = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Dot | Isa::Avx512 => (&avx512::ALONG, &avx512::ACROSS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => (&avx2::ALONG, &avx2::ACROSS),
            Isa::Portable => (&portable::ALONG, &portable::ACROSS),
        };
        Wide { along, across }
    }
}

impl Kernel for Wide {
    type Number = f32;

    fn rows(&self) -> usize {
        self.along.len()
    }

    fn panel_len(&self, depth: usize) -> usize {
        depth * PANEL
    }

    fn pack_band(&self, rows: &Strip<'_>, size: usize, band: &mut Lines) {
        let band = band.at_least(rows.lines.div_ceil(size) * BLOCK);
        match rows.way() {
            Way::Along => {
                for row in 0..rows.lines {
                    let to = &mut band[row / size * BLOCK + row % size * LINE..][..rows.depth];
                    copy(rows, rows.at(row), to);
                }
            }
            Way::Across => match rows.values {
                Values::F32(from) => {
                    across(from, rows.stride(), rows.lines, rows.depth, size, band)
                }
                Values::Bf16(_) => {
                    for (block, to) in band.chunks_exact_mut(BLOCK).enumerate() {
                        let lines = block * size..rows.lines.min((block + 1) * size);
                        for (k, to) in to.chunks_exact_mut(ACROSS).take(rows.depth).enumerate() {
                            copy(rows, rows.at(k) + lines.start, &mut to[..lines.len()]);
                        }
                    }
                }
            },
        }
    }

    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [f32]) {
        match cols.way() {
            Way::Across => match cols.values {
                Values::F32(from) => runs(from, cols.stride(), cols.lines, panel),
                Values::Bf16(_) => {
                    for (k, to) in panel.chunks_exact_mut(PANEL).enumerate() {
                        copy(cols, cols.at(k), &mut to[..cols.lines]);
                    }
                }
            },
            Way::Along => {
                let to = bytemuck::cast_slice_mut(panel);
                match cols.values {
                    Values::F32(from) => {
                        turn(from, cols.stride(), cols.lines, cols.depth, to, PANEL);
                    }
                    Values::Bf16(_) => {
                        let mut wide = vec![0.0; cols.lines * cols.depth];
                        for (line, to) in wide.chunks_exact_mut(cols.depth.max(1)).enumerate() {
                            copy(cols, cols.at(line), to);
                        }
                        turn(&wide, cols.depth, cols.lines, cols.depth, to, PANEL);
                    }
                }
            }
        }
    }

    fn multiply(&self, block: Block<'_>, panel: &[f32], is_first: bool, tile: &mut Tile) {
        let micros = if block.rows.way() == Way::Along { self.along } else { self.across };
        let numbers: &[f32] = &block.band.get()[block.number * BLOCK..][..BLOCK];
        let (depth, panel) = (block.rows.depth, panel.as_ptr());
        let factors = Factors { depth, block: numbers.as_ptr(), panel, is_first };
        // SAFETY: `Wide::new` took functions that the processor can run; `pack_band` laid out
        // `rows.lines` rows over the depth in this way, a panel has 32 columns over the depth.
        unsafe { micros[block.rows.lines - 1](factors, tile.as_mut_ptr()) };
    }
}

vectorised! {
    /// Copies 32 lines that lie side by side, at each depth; those after the last are whatever
    /// comes next.
    fn runs(from: &[f32], stride: usize, lines: usize, panel: &mut [f32]) {
        for (k, to) in panel.chunks_exact_mut(PANEL).enumerate() {
            let from = &from[k * stride..];
            match from.first_chunk::<PANEL>() {
                Some(whole) => to.copy_from_slice(whole),
                None => last_run(&from[..lines], to),
            }
        }
    }

    /// Copies a band whose rows lie side by side: 16 for each block of `size` rows, those after
    /// the last being whatever comes next.
    fn across(
        from: &[f32],
        stride: usize,
        lines: usize,
        depth: usize,
        size: usize,
        band: &mut [f32],
    ) {
        for k in 0..depth {
            let from = &from[k * stride..];
            for (block, first) in (0..lines).step_by(size).enumerate() {
                let to = &mut band[block * BLOCK + k * ACROSS..][..ACROSS];
                match from[first..].first_chunk::<ACROSS>() {
                    Some(whole) => to.copy_from_slice(whole),
                    None => last_run(&from[first..lines.min(first + size)], to),
                }
            }
        }
    }
}

/// Apart, so that the copies of a known length do not become calls.
#[cold]
#[inline(never)]
fn last_run(from: &[f32], to: &mut [f32]) {
    to[..from.len()].copy_from_slice(from);
}

/// Copies numbers that are next to each other, widened if need be.
fn copy(strip: &Strip<'_>, from: usize, to: &mut [f32]) {
    match strip.values {
        Values::F32(values) => to.copy_from_slice(&values[from..][..to.len()]),
        Values::Bf16(values) => crate::cast::widen(&values[from..][..to.len()], to),
    }
}

/// Place of a row's number at depth `k`.
const fn place(row: usize, k: usize, is_across: bool) -> usize {
    if is_across { k * ACROSS + row } else { row * LINE + k }
}

/// Functions for one row, two rows, and so on.
macro_rules! micros {
    ($micro:ident, $($rows:literal)*) => {
        pub(super) static ALONG: [super::Micro; [$($rows),*].len()] = [$($micro::<$rows, false>),*];
        pub(super) static ACROSS: [super::Micro; [$($rows),*].len()] = [$($micro::<$rows, true>),*];
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Factors, PANEL, place};

    micros!(micro, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

    /// As [`Micro`](super::Micro) says, two vectors for each row.
    ///
    /// # Safety
    ///
    /// As of [`Micro`](super::Micro).
    #[target_feature(enable = "avx512f")]
    unsafe fn micro<const ROWS: usize, const ACROSS: bool>(factors: Factors, tile: *mut f32) {
        let Factors { depth, block, panel, is_first } = factors;
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        // SAFETY: the caller vouches for block, panel and tile.
        unsafe {
            if !is_first {
                for (row, sums) in sums.iter_mut().enumerate() {
                    sums[0] = _mm512_loadu_ps(tile.add(row * PANEL));
                    sums[1] = _mm512_loadu_ps(tile.add(row * PANEL + 16));
                }
            }
            for k in 0..depth {
                let b = panel.add(k * PANEL);
                let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*block.add(place(row, k, ACROSS)));
                    sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                    sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                _mm512_storeu_ps(tile.add(row * PANEL), sums[0]);
                _mm512_storeu_ps(tile.add(row * PANEL + 16), sums[1]);
            }
        }
    }
}

/// As [`Micro`] says, in plain code: some columns at a time, so that their sums stay in registers.
///
/// # Safety
///
/// As of [`Micro`]: block and panel have what the layout says, the tile its rows.
#[inline(always)]
unsafe fn plain<const ROWS: usize, const COLS: usize, const ACROSS: bool>(
    factors: Factors,
    tile: *mut f32,
    fused: impl Fn(f32, f32, f32) -> f32,
) {
    let Factors { depth, block, panel, is_first } = factors;
    for first in (0..PANEL).step_by(COLS) {
        let mut sums = [[0.0_f32; COLS]; ROWS];
        // SAFETY: the caller vouches for block, panel and tile.
        unsafe {
            let (panel, tile) = (panel.add(first), tile.add(first));
            if !is_first {
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = tile.add(row * PANEL).cast::<[f32; COLS]>().read();
                }
            }
            for k in 0..depth {
                let b: [f32; COLS] = panel.add(k * PANEL).cast::<[f32; COLS]>().read();
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = *block.add(place(row, k, ACROSS));
                    for col in 0..COLS {
                        sums[col] = fused(a, b[col], sums[col]);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                tile.add(row * PANEL).cast::<[f32; COLS]>().write(*sums);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::Factors;

    micros!(micro, 1 2 3 4 5 6);

    /// As [`Micro`](super::Micro) says, two vectors for each row at a time.
    ///
    /// # Safety
    ///
    /// As of [`Micro`](super::Micro).
    #[target_feature(enable = "avx2,fma")]
    unsafe fn micro<const ROWS: usize, const ACROSS: bool>(factors: Factors, tile: *mut f32) {
        // SAFETY: the caller vouches for the memory.
        unsafe { super::plain::<ROWS, 16, ACROSS>(factors, tile, f32::mul_add) };
    }
}

mod portable {
    use super::Factors;

    micros!(micro, 1 2 3 4);

    /// As [`Micro`](super::Micro) says, for any processor.
    ///
    /// # Safety
    ///
    /// As of [`Micro`](super::Micro).
    unsafe fn micro<const ROWS: usize, const ACROSS: bool>(factors: Factors, tile: *mut f32) {
        let fused = |a: f32, b: f32, sum: f32| {
            // Where it is no instruction, `mul_add` is a slow call.
            if cfg!(target_arch = "aarch64") { a.mul_add(b, sum) } else { a * b + sum }
        };
        // SAFETY: the caller vouches for the memory.
        unsafe { super::plain::<ROWS, 8, ACROSS>(factors, tile, fused) };
    }
}
