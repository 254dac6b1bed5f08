//! Products of BF16 in pairs: `vdpbf16ps` adds two products to each of 16 sums of F32.
//!
//! It rounds to nearest even and takes subnormal numbers for zero. On AMD's processors it has
//! twice the rate of F32's multiply-add, on Intel's half.
//!
//! A panel is `[parts of 32 depths][2 halves][16 pairs][16 columns]`, as AMX wants it. A block is
//! `[part][row][LINE pairs]` if its rows are copied along the depth, `[pair][16 rows]` if across.

use std::{arch::x86_64::*, ops::Range};

use bytemuck::{cast_slice, cast_slice_mut};
use half::bf16;

use super::{
    Values,
    lines::Lines,
    strip::{Strip, Way},
    transpose::turn,
    walk::{Kernel, PANEL, Tile},
};
use crate::vector::vectorised;

/// Depths of a part of a panel: what a tile of AMX takes.
pub(super) const PART: usize = 32;

/// Numbers of a part of a panel, and of one of its halves.
const PART_LEN: usize = PART * PANEL;
const HALF_LEN: usize = PART_LEN / 2;

/// Pairs of a part of a block, and the distance of its rows, a line more.
const PAIRS: usize = 256;
const LINE: usize = PAIRS + 16;

/// Distance of pairs in a block that is packed across.
const ACROSS: usize = 16;

/// The kernel.
pub(super) struct Dot;

/// Whether `vdpbf16ps` is quicker than F32's multiply-add: on AMD's processors.
pub(super) fn is_quick() -> bool {
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

impl Kernel for Dot {
    type Number = bf16;

    fn rows(&self) -> usize {
        MICROS_ALONG.len()
    }

    fn panel_len(&self, depth: usize) -> usize {
        depth.next_multiple_of(PART) * PANEL
    }

    fn pack_block(&self, rows: &Strip<'_>, block: &mut Lines) {
        let from = narrow(rows);
        match rows.way() {
            Way::Along => {
                let parts = rows.depth.div_ceil(2 * PAIRS);
                let block = block.at_least::<bf16>(parts * rows.lines * 2 * LINE);
                for (line, to) in block.chunks_exact_mut(2 * LINE).enumerate() {
                    let (part, row) = (line / rows.lines, line % rows.lines);
                    let first = part * 2 * PAIRS;
                    let depth = (2 * PAIRS).min(rows.depth - first);
                    to[..depth].copy_from_slice(&from[rows.at(row) + first..][..depth]);
                    to[depth] = bf16::ZERO;
                }
            }
            Way::Across => {
                let block = block.at_least::<bf16>(rows.depth.div_ceil(2) * 2 * ACROSS);
                interleave(rows, 0, 0..rows.depth, block);
            }
        }
    }

    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [bf16]) {
        pack_panel(cols, panel);
    }

    fn multiply(&self, rows: &Strip<'_>, block: &Lines, panel: &[bf16], tile: &mut Tile) {
        let micros = if rows.way() == Way::Along { &MICROS_ALONG } else { &MICROS_ACROSS };
        let (pairs, block) = (rows.depth.div_ceil(2), block.get::<u32>().as_ptr());
        // SAFETY: this kernel is chosen only where the processor has the instruction;
        // `pack_block` laid out `rows.lines` rows of pairs in this way, `pack_panel` the panel.
        unsafe { micros[rows.lines - 1](pairs, block, panel.as_ptr(), tile.as_mut_ptr()) };
    }
}

/// The numbers of a strip of BF16.
pub(super) fn narrow<'a>(strip: &Strip<'a>) -> &'a [bf16] {
    match strip.values {
        Values::Bf16(values) => values,
        Values::F32(_) => unreachable!("products of BF16 are chosen for two factors of BF16"),
    }
}

/// Packs columns for products of BF16, here and in AMX.
pub(super) fn pack_panel(cols: &Strip<'_>, panel: &mut [bf16]) {
    let from = narrow(cols);
    if !cols.depth.is_multiple_of(PART) {
        panel.fill(bf16::ZERO);
    }
    for (half, to) in panel.chunks_exact_mut(HALF_LEN).enumerate() {
        let (first, depth) = (half % 2 * PANEL / 2, half / 2 * PART);
        let lines = first..cols.lines.min(first + PANEL / 2);
        if lines.is_empty() {
            continue;
        }
        let depths = PART.min(cols.depth - depth);
        match cols.way() {
            Way::Along => {
                let from = &from[cols.at(first) + depth..];
                let (lines, to) = (lines.len(), to);
                turn(from, cols.stride(), lines, depths / 2, cast_slice_mut(to), 16);
                if depths % 2 == 1 {
                    let last = &mut to[depths / 2 * PANEL..];
                    for line in 0..lines {
                        last[2 * line] = from[cols.at(line) + depths - 1];
                    }
                }
            }
            Way::Across => {
                interleave(cols, first, depth..depth + depths, to);
            }
        }
    }
}

/// Pairs of the numbers at two neighbouring depths, from the given one on, of lines that lie side
/// by side: 16 lines at each pair of depths, which may end with others that come next and are
/// never used. After the last depth come zeros.
pub(super) fn interleave(
    strip: &Strip<'_>,
    first_line: usize,
    depth: Range<usize>,
    to: &mut [bf16],
) {
    let from = &narrow(strip)[strip.at(depth.start) + first_line..];
    let lines = strip.lines - first_line;
    pairs(cast_slice(from), strip.stride(), lines.min(16), depth.len(), cast_slice_mut(to));
}

vectorised! {
    fn pairs(from: &[u16], stride: usize, lines: usize, depth: usize, to: &mut [[[u16; 2]; 16]]) {
        for (pair, to) in to.iter_mut().enumerate().take(depth.div_ceil(2)) {
            let first = &from[2 * pair * stride..];
            let second = if 2 * pair + 1 < depth { &first[stride..] } else { &[0; 16] };
            match (first.first_chunk::<16>(), second.first_chunk::<16>()) {
                // A known number of pairs makes whole vectors.
                (Some(first), Some(second)) => {
                    *to = std::array::from_fn(|i| [first[i], second[i]]);
                }
                _ => {
                    for (to, (a, b)) in to.iter_mut().zip(first.iter().zip(second)).take(lines) {
                        *to = [*a, *b];
                    }
                }
            }
        }
    }
}

/// Multiplies so many rows of a block by a panel, and writes the tile.
type Micro = unsafe fn(pairs: usize, block: *const u32, panel: *const bf16, tile: *mut f32);

macro_rules! micros {
    ($($rows:literal)*) => {
        static MICROS_ALONG: [Micro; [$($rows),*].len()] = [$(micro::<$rows, false>),*];
        static MICROS_ACROSS: [Micro; [$($rows),*].len()] = [$(micro::<$rows, true>),*];
    };
}

micros!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn micro<const ROWS: usize, const IS_ACROSS: bool>(
    mut pairs: usize,
    mut block: *const u32,
    mut panel: *const bf16,
    tile: *mut f32,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let half = PART / 2;
    // SAFETY: the caller vouches for block, panel and tile. A part of a block holds a whole
    // number of parts of a panel, so no step crosses the end of either.
    unsafe {
        while pairs > 0 {
            let part = pairs.min(PAIRS);
            for k in 0..part {
                let b = panel.add(k / half * PART_LEN + k % half * PANEL).cast::<__m512bh>();
                let (b0, b1) = (b.read(), b.byte_add(2 * HALF_LEN).read());
                for (row, sums) in sums.iter_mut().enumerate() {
                    let place = if IS_ACROSS { k * ACROSS + row } else { row * LINE + k };
                    let a = _mm512_set1_epi32(*block.add(place) as i32);
                    let a = std::mem::transmute::<__m512i, __m512bh>(a);
                    sums[0] = _mm512_dpbf16_ps(sums[0], a, b0);
                    sums[1] = _mm512_dpbf16_ps(sums[1], a, b1);
                }
            }
            pairs -= part;
            block = block.add(if IS_ACROSS { part * ACROSS } else { ROWS * LINE });
            panel = panel.add(part / half * PART_LEN);
        }
        for (row, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(tile.add(row * PANEL), sums[0]);
            _mm512_storeu_ps(tile.add(row * PANEL + 16), sums[1]);
        }
    }
}
