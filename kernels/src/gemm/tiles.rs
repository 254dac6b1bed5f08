//! Products of BF16 in the tiles of AMX, 32 rows by 32 columns at a time.
//!
//! Rows that lie along the depth in whole parts are read where they are; others are copied, or
//! turned, into `[32 rows][depth, padded with zeros, and a line more]`.

use half::bf16;

use super::{
    amx::Tiles,
    dot::{self, Dot, PART},
    lines::Lines,
    strip::{Strip, Way},
    transpose::turn,
    walk::{Kernel, PANEL, Tile},
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

/// Whether rows can be read where they are.
fn is_in_place(rows: &Strip<'_>) -> bool {
    rows.way() == Way::Along && rows.lines == ROWS && rows.depth.is_multiple_of(PART)
}

/// Distance of rows in a block: a line more than the depth, so that they do not compete for
/// places in the cache.
fn line(depth: usize) -> usize {
    depth.next_multiple_of(PART) + PART
}

impl Kernel for Amx {
    type Number = bf16;

    fn rows(&self) -> usize {
        ROWS
    }

    fn panel_len(&self, depth: usize) -> usize {
        Dot.panel_len(depth)
    }

    fn pack_block(&self, rows: &Strip<'_>, block: &mut Lines) {
        if is_in_place(rows) {
            return;
        }
        let (from, line) = (dot::narrow(rows), line(rows.depth));
        match rows.way() {
            Way::Along => {
                let block = block.at_least::<bf16>(ROWS * line);
                for (row, to) in block.chunks_exact_mut(line).take(rows.lines).enumerate() {
                    let (own, none) = to.split_at_mut(rows.depth);
                    own.copy_from_slice(&from[rows.at(row)..][..rows.depth]);
                    none.fill(bf16::ZERO);
                }
            }
            Way::Across => {
                let pairs = rows.depth.div_ceil(2);
                let block = block.at_least::<bf16>(ROWS * line);
                block.fill(bf16::ZERO);
                let mut across = vec![bf16::ZERO; pairs * ROWS];
                for first in (0..rows.lines).step_by(ROWS / 2) {
                    dot::interleave(rows, first, 0..rows.depth, &mut across);
                    let lines = (rows.lines - first).min(ROWS / 2);
                    let block = bytemuck::cast_slice_mut(&mut block[first * line..]);
                    turn(&across, ROWS, pairs, lines, block, line / 2);
                }
            }
        }
    }

    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [bf16]) {
        Dot.pack_panel(cols, panel);
    }

    fn multiply(&self, rows: &Strip<'_>, block: &Lines, panel: &[bf16], tile: &mut Tile) {
        let (from, stride) = if is_in_place(rows) {
            (&dot::narrow(rows)[..rows.at(ROWS - 1) + rows.depth], rows.stride())
        } else {
            (&block.get()[..ROWS * line(rows.depth)], line(rows.depth))
        };
        let parts = rows.depth.div_ceil(PART);
        // SAFETY: 32 rows over all parts lie at this stride, those beyond the last row of the
        // strip being whatever the scratch holds; the panel has all parts, the tile 32 rows.
        unsafe {
            let (a, b, c) = (from.as_ptr(), panel.as_ptr(), tile.as_mut_ptr());
            self.0.block(parts, a, stride, b, c, PANEL, false);
        }
    }
}
