//! Products of F32 in vectors, with fused multiply-add where the processor has it.
//!
//! A panel is `[depth][32 columns]`. A block is `[part of the depth][row][LINE]` if its rows are
//! copied along the depth, `[depth][16 rows]` if across: either way the place of the next number
//! is known when this is compiled.

use super::{
    Values,
    isa::Isa,
    lines::Lines,
    strip::{Strip, Way},
    transpose::turn,
    walk::{Kernel, PANEL, Tile},
};
use crate::vector::vectorised;

/// Depth of a part of a block.
const PART: usize = 512;

/// Distance of its rows: one line more, so that rows do not compete for places in the cache.
const LINE: usize = PART + 16;

/// Distance of depths in a block that is packed across.
const ACROSS: usize = 16;

/// Multiplies so many rows of a block by a panel, and writes the tile.
type Micro = unsafe fn(depth: usize, block: *const f32, panel: *const f32, tile: *mut f32);

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

    fn pack_block(&self, rows: &Strip<'_>, block: &mut Lines) {
        match rows.way() {
            Way::Along => {
                let block = block.at_least(rows.depth.div_ceil(PART) * rows.lines * LINE);
                for (line, to) in block.chunks_exact_mut(LINE).enumerate() {
                    let (part, row) = (line / rows.lines, line % rows.lines);
                    let depth = PART.min(rows.depth - part * PART);
                    copy(rows, rows.at(row) + part * PART, &mut to[..depth]);
                }
            }
            Way::Across => runs::<ACROSS>(rows, block.at_least(rows.depth * ACROSS)),
        }
    }

    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [f32]) {
        match cols.way() {
            Way::Across => runs::<PANEL>(cols, panel),
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

    fn multiply(&self, rows: &Strip<'_>, block: &Lines, panel: &[f32], tile: &mut Tile) {
        let micros = if rows.way() == Way::Along { self.along } else { self.across };
        let block: &[f32] = block.get();
        // SAFETY: `Wide::new` took functions that the processor can run; `pack_block` laid out
        // `rows.lines` rows over the depth in this way, a panel has 32 columns over the depth.
        unsafe {
            micros[rows.lines - 1](rows.depth, block.as_ptr(), panel.as_ptr(), tile.as_mut_ptr());
        }
    }
}

/// Copies lines that lie side by side, so many at each depth: the first of them are the strip's,
/// the others whatever comes next and is never used.
fn runs<const LINES: usize>(strip: &Strip<'_>, to: &mut [f32]) {
    match strip.values {
        Values::F32(from) if LINES == PANEL => panel_runs(from, strip.stride(), strip.lines, to),
        Values::F32(from) => block_runs(from, strip.stride(), strip.lines, to),
        Values::Bf16(_) => {
            for (k, to) in to.chunks_exact_mut(LINES).enumerate() {
                copy(strip, strip.at(k), &mut to[..strip.lines]);
            }
        }
    }
}

#[inline(always)]
fn runs_of<const LINES: usize>(from: &[f32], stride: usize, lines: usize, to: &mut [f32]) {
    for (k, to) in to.chunks_exact_mut(LINES).enumerate() {
        let from = &from[k * stride..];
        match from.first_chunk::<LINES>() {
            Some(whole) => to.copy_from_slice(whole),
            None => to[..lines].copy_from_slice(&from[..lines]),
        }
    }
}

vectorised! {
    fn panel_runs(from: &[f32], stride: usize, lines: usize, to: &mut [f32]) {
        runs_of::<PANEL>(from, stride, lines, to);
    }

    fn block_runs(from: &[f32], stride: usize, lines: usize, to: &mut [f32]) {
        runs_of::<ACROSS>(from, stride, lines, to);
    }
}

/// Copies numbers that are next to each other, widened if need be.
fn copy(strip: &Strip<'_>, from: usize, to: &mut [f32]) {
    match strip.values {
        Values::F32(values) => to.copy_from_slice(&values[from..][..to.len()]),
        Values::Bf16(values) => crate::cast::widen(&values[from..][..to.len()], to),
    }
}

/// Place of a row's number at depth `k` of a part.
const fn place(row: usize, k: usize, is_across: bool) -> usize {
    if is_across { k * ACROSS + row } else { row * LINE + k }
}

/// Length of a part of a block of so many rows.
const fn part_len(rows: usize, depth: usize, is_across: bool) -> usize {
    if is_across { depth * ACROSS } else { rows * LINE }
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

    use super::{PANEL, PART, part_len, place};

    micros!(micro, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

    /// As [`Micro`](super::Micro) says, two vectors for each row.
    #[target_feature(enable = "avx512f")]
    unsafe fn micro<const ROWS: usize, const ACROSS: bool>(
        mut depth: usize,
        mut block: *const f32,
        mut panel: *const f32,
        tile: *mut f32,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        // SAFETY: the caller vouches for block, panel and tile.
        unsafe {
            while depth > 0 {
                let part = depth.min(PART);
                for k in 0..part {
                    let b = panel.add(k * PANEL);
                    let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let a = _mm512_set1_ps(*block.add(place(row, k, ACROSS)));
                        sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                        sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
                    }
                }
                depth -= part;
                block = block.add(part_len(ROWS, part, ACROSS));
                panel = panel.add(part * PANEL);
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
    depth: usize,
    block: *const f32,
    panel: *const f32,
    tile: *mut f32,
    fused: impl Fn(f32, f32, f32) -> f32,
) {
    for first in (0..PANEL).step_by(COLS) {
        let mut sums = [[0.0_f32; COLS]; ROWS];
        let (mut left, mut block) = (depth, block);
        // SAFETY: the caller vouches for block, panel and tile.
        unsafe {
            let mut panel = panel.add(first);
            while left > 0 {
                let part = left.min(PART);
                for k in 0..part {
                    let b: [f32; COLS] = panel.add(k * PANEL).cast::<[f32; COLS]>().read();
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let a = *block.add(place(row, k, ACROSS));
                        for col in 0..COLS {
                            sums[col] = fused(a, b[col], sums[col]);
                        }
                    }
                }
                left -= part;
                block = block.add(part_len(ROWS, part, ACROSS));
                panel = panel.add(part * PANEL);
            }
            for (row, sums) in sums.iter().enumerate() {
                tile.add(row * PANEL + first).cast::<[f32; COLS]>().write(*sums);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    micros!(micro, 1 2 3 4 5 6);

    /// As [`Micro`](super::Micro) says, two vectors for each row at a time.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn micro<const ROWS: usize, const ACROSS: bool>(
        depth: usize,
        block: *const f32,
        panel: *const f32,
        tile: *mut f32,
    ) {
        // SAFETY: the caller vouches for the memory.
        unsafe { super::plain::<ROWS, 16, ACROSS>(depth, block, panel, tile, f32::mul_add) };
    }
}

mod portable {
    micros!(micro, 1 2 3 4);

    /// As [`Micro`](super::Micro) says, for any processor.
    unsafe fn micro<const ROWS: usize, const ACROSS: bool>(
        depth: usize,
        block: *const f32,
        panel: *const f32,
        tile: *mut f32,
    ) {
        let fused = |a: f32, b: f32, sum: f32| {
            // Where it is no instruction, `mul_add` is a slow call.
            if cfg!(target_arch = "aarch64") { a.mul_add(b, sum) } else { a * b + sum }
        };
        // SAFETY: the caller vouches for the memory.
        unsafe { super::plain::<ROWS, 8, ACROSS>(depth, block, panel, tile, fused) };
    }
}
