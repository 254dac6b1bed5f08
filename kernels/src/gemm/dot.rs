//! Products of BF16 in pairs: `vdpbf16ps` adds two products to each of 16 sums of F32.
//!
//! It rounds to nearest even and takes subnormal numbers for zero. On AMD's processors it has
//! twice the rate of F32's multiply-add, on Intel's half.
//!
//! A panel is `[32 depths at a time][2 halves][16 pairs][16 columns]`, as AMX wants it. A block is
//! `[row][LINE pairs]` if its rows are copied along the depth, `[pair][16 rows]` if across.

use std::arch::x86_64::*;

use bytemuck::cast_slice_mut;
use half::bf16;

use super::{
    Values,
    lines::Lines,
    pairs,
    strip::{Strip, Way},
    transpose::turn,
    walk::{Block, Kernel, PANEL, PART, Tile},
};

/// Depths of a square of a panel: what a tile of AMX takes.
pub(super) const SIDE: usize = 32;

/// Numbers of a square of a panel, and of one of its halves.
const SQUARE: usize = SIDE * PANEL;
const HALF: usize = SQUARE / 2;

/// Distance of the rows of a block, in pairs: a line more than their depth.
const LINE: usize = PART / 2 + 16;

/// Pairs of a block: enough for either way.
const BLOCK: usize = 16 * LINE;

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
        depth.next_multiple_of(SIDE) * PANEL
    }

    fn pack_band(&self, rows: &Strip<'_>, size: usize, band: &mut Lines) {
        let from = narrow(rows);
        let band = band.at_least::<bf16>(rows.lines.div_ceil(size) * 2 * BLOCK);
        match rows.way() {
            Way::Along => {
                for row in 0..rows.lines {
                    let to = &mut band[row / size * 2 * BLOCK + row % size * 2 * LINE..];
                    to[..rows.depth].copy_from_slice(&from[rows.at(row)..][..rows.depth]);
                    to[rows.depth] = bf16::ZERO;
                }
            }
            Way::Across => pairs::blocks(from, rows, size, 2 * BLOCK, band),
        }
    }

    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [bf16]) {
        pack_panel(cols, panel);
    }

    fn multiply(&self, block: Block<'_>, panel: &[bf16], is_first: bool, tile: &mut Tile) {
        let way = block.rows.way();
        let micros = if way == Way::Along { &MICROS_ALONG } else { &MICROS_ACROSS };
        let numbers: &[u32] = &block.band.get()[block.number * BLOCK..][..BLOCK];
        let (pairs, panel) = (block.rows.depth.div_ceil(2), panel.as_ptr());
        let factors = Factors { pairs, block: numbers.as_ptr(), panel, is_first };
        // SAFETY: this kernel is chosen only where the processor has the instruction; `pack_band`
        // laid out `rows.lines` rows of pairs in this way, `pack_panel` the panel.
        unsafe { micros[block.rows.lines - 1](factors, tile.as_mut_ptr()) };
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
    if !cols.depth.is_multiple_of(SIDE) {
        panel.fill(bf16::ZERO);
    }
    if cols.way() == Way::Across && cols.lines == PANEL {
        return pairs::panel(from, cols, panel);
    }
    for (half, to) in panel.chunks_exact_mut(HALF).enumerate() {
        let (first, depth) = (half % 2 * PANEL / 2, half / 2 * SIDE);
        let lines = first..cols.lines.min(first + PANEL / 2);
        if lines.is_empty() {
            continue;
        }
        let depths = SIDE.min(cols.depth - depth);
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
            Way::Across => pairs::interleave(from, cols, first, depth..depth + depths, to),
        }
    }
}

/// What a function gets: a block, a panel, and whether the tile is written or added to.
#[derive(Clone, Copy)]
struct Factors {
    pairs: usize,
    block: *const u32,
    panel: *const bf16,
    is_first: bool,
}

/// Multiplies so many rows of a block by a panel.
///
/// # Safety
///
/// The processor has the instruction; block and panel hold what the layout says, the tile its rows.
type Micro = unsafe fn(factors: Factors, tile: *mut f32);

macro_rules! micros {
    ($($rows:literal)*) => {
        static MICROS_ALONG: [Micro; [$($rows),*].len()] = [$(micro::<$rows, false>),*];
        static MICROS_ACROSS: [Micro; [$($rows),*].len()] = [$(micro::<$rows, true>),*];
    };
}

micros!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);

/// As [`Micro`] says, two vectors for each row.
///
/// # Safety
///
/// As of [`Micro`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn micro<const ROWS: usize, const IS_ACROSS: bool>(factors: Factors, tile: *mut f32) {
    let Factors { pairs, block, panel, is_first } = factors;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let side = SIDE / 2;
    // SAFETY: the caller vouches for block, panel and tile.
    unsafe {
        if !is_first {
            for (row, sums) in sums.iter_mut().enumerate() {
                sums[0] = _mm512_loadu_ps(tile.add(row * PANEL));
                sums[1] = _mm512_loadu_ps(tile.add(row * PANEL + 16));
            }
        }
        for k in 0..pairs {
            let b = panel.add(k / side * SQUARE + k % side * PANEL).cast::<__m512bh>();
            let (b0, b1) = (b.read(), b.byte_add(2 * HALF).read());
            for (row, sums) in sums.iter_mut().enumerate() {
                let place = if IS_ACROSS { k * ACROSS + row } else { row * LINE + k };
                let a = _mm512_set1_epi32(*block.add(place) as i32);
                let a = std::mem::transmute::<__m512i, __m512bh>(a);
                sums[0] = _mm512_dpbf16_ps(sums[0], a, b0);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, b1);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(tile.add(row * PANEL), sums[0]);
            _mm512_storeu_ps(tile.add(row * PANEL + 16), sums[1]);
        }
    }
}
