//! Products of BF16 in the tiles of AMX, 32 rows by 32 columns at a time.
//!
//! Blocks whose rows lie along a depth of whole squares are read where they are; others are
//! copied, or turned, into `[32 rows][LINE]`, padded with zeros.

use bytemuck::cast_slice_mut;
use half::bf16;

use super::{
    amx::Tiles,
    dot::{self, Dot, SIDE},
    lines::Lines,
    pairs,
    strip::{Strip, Way},
    transpose::turn,
    walk::{Block, Kernel, PANEL, PART, Tile},
};

/// Rows of a block.
const ROWS: usize = 32;

/// The kernel; holds the tiles of its thread for the time of one product.
pub(super) struct Amx(Tiles);

impl Amx {
    /// Takes the tiles of this thread.
    pub(super) fn new() -> Self {
        Amx(Tiles::configure())
    }
}

/// Whether a block can be read where it is.
fn is_in_place(rows: &Strip<'_>) -> bool {
    rows.way() == Way::Along && rows.lines == ROWS && rows.depth.is_multiple_of(SIDE)
}

/// Distance of rows in a block: a line more than their depth, so that they do not compete for
/// places in the cache.
const LINE: usize = PART + SIDE;

/// Numbers of a block.
const BLOCK: usize = ROWS * LINE;

impl Kernel for Amx {
    type Number = bf16;

    fn rows(&self) -> usize {
        ROWS
    }

    fn panel_len(&self, depth: usize) -> usize {
        Dot.panel_len(depth)
    }

    fn pack_band(&self, rows: &Strip<'_>, size: usize, band: &mut Lines) {
        let from = dot::narrow(rows);
        let band = band.at_least::<bf16>(rows.lines.div_ceil(size) * BLOCK);
        match rows.way() {
            Way::Along => {
                let whole = rows.lines / ROWS * ROWS;
                let in_place = size == ROWS && rows.depth.is_multiple_of(SIDE);
                for row in if in_place { whole } else { 0 }..rows.lines {
                    let to = &mut band[row / size * BLOCK + row % size * LINE..];
                    let (own, none) = to.split_at_mut(rows.depth);
                    own.copy_from_slice(&from[rows.at(row)..][..rows.depth]);
                    none[..SIDE].fill(bf16::ZERO);
                }
            }
            Way::Across => {
                let pairs = rows.depth.div_ceil(2);
                let mut across = vec![bf16::ZERO; pairs * ROWS];
                for (block, to) in band.chunks_exact_mut(BLOCK).enumerate() {
                    to.fill(bf16::ZERO);
                    let end = rows.lines.min((block + 1) * size);
                    for first in (block * size..end).step_by(ROWS / 2) {
                        pairs::interleave(from, rows, first, 0..rows.depth, &mut across);
                        let lines = (end - first).min(ROWS / 2);
                        let to = cast_slice_mut(&mut to[(first - block * size) * LINE..]);
                        turn(&across, ROWS, pairs, lines, to, LINE / 2);
                    }
                }
            }
        }
    }

    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [bf16]) {
        Dot.pack_panel(cols, panel);
    }

    fn multiply(&self, block: Block<'_>, panel: &[bf16], is_first: bool, tile: &mut Tile) {
        let rows = &block.rows;
        let (from, stride) = if is_in_place(rows) {
            (&dot::narrow(rows)[..rows.at(ROWS - 1) + rows.depth], rows.stride())
        } else {
            (&block.band.get()[block.number * BLOCK..][..BLOCK], LINE)
        };
        let squares = rows.depth.div_ceil(SIDE);
        // SAFETY: 32 rows over all squares lie at this stride, those beyond the last row of the
        // block being whatever the scratch holds; the panel has all squares, the tile 32 rows.
        unsafe {
            let (a, b, c) = (from.as_ptr(), panel.as_ptr(), tile.as_mut_ptr());
            self.0.block(squares, a, stride, b, c, PANEL, !is_first);
        }
    }
}
