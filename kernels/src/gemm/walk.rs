//! The way through a product: groups of panels; in each, bands of rows; for each, parts of the
//! depth; and in these, every block of rows times every panel.
//!
//! The part of a group stays in the second cache, that of a block in the first. A sum goes on from
//! part to part where it stopped, so parts do not change its bits.

use std::{cell::RefCell, mem::MaybeUninit, ops::Range};

use bytemuck::Pod;

use super::{
    Layout, Matrix, MatrixMut, Output, Right, ValuesMut, isa::Isa, lines::Lines, strip::Strip,
    wide::Wide,
};
#[cfg(target_arch = "x86_64")]
use super::{dot::Dot, tiles::Amx};
use crate::{number::Number, vector::vectorised};

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Rows of a block at most, in any kernel.
const MOST_ROWS: usize = 32;

/// Depth of a part.
pub(super) const PART: usize = 512;

/// Bytes of a part of the panels of a group: half of a second cache of a megabyte.
const GROUP: usize = 512 << 10;

/// Blocks of a band.
const BAND: usize = 4;

/// A block times a panel; rows beyond those of the block are not read.
pub(super) type Tile = [f32; MOST_ROWS * PANEL];

/// What is to be computed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Area {
    /// All elements.
    Whole,
    /// Those on and below the diagonal, and maybe others.
    Lower,
}

/// In which numbers products are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Precision {
    F32,
    Bf16,
}

impl Precision {
    /// BF16 is widened where there are no instructions for its products.
    pub(super) fn of(isa: Isa, is_bf16: bool) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Dot if is_bf16 => Precision::Bf16,
            _ => Precision::F32,
        }
    }
}

/// Multiplies blocks of packed rows by packed panels.
///
/// A block holds some rows of the left factor, a panel 32 columns of the right one, both over the
/// whole depth. How they lie in memory is the kernel's own business.
pub(super) trait Kernel {
    /// What is packed.
    type Number: Pod;

    /// Rows of a block at most.
    fn rows(&self) -> usize;

    /// Numbers of a panel.
    fn panel_len(&self, depth: usize) -> usize;

    /// Packs a part of some columns of the right factor, at most 32; what stands for the others
    /// is never used.
    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [Self::Number]);

    /// Packs a part of a band, in blocks of `size` rows.
    fn pack_band(&self, rows: &Strip<'_>, size: usize, band: &mut Lines);

    /// Multiplies a part of one block of the band that was packed last, and of a panel; adds that
    /// to the tile, or writes it if this is the first part.
    fn multiply(&self, block: Block<'_>, panel: &[Self::Number], is_first: bool, tile: &mut Tile);
}

/// A part of one block of a band.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// Where it is packed.
    pub(super) band: &'a Lines,
    /// Its number in the band.
    pub(super) number: usize,
    /// The rows that were packed.
    pub(super) rows: Strip<'a>,
}

/// Memory that every thread keeps between products.
#[derive(Default)]
struct Scratch {
    band: Lines,
    panels: Lines,
    tiles: Vec<Tile>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What is done with each tile.
struct Target<'a> {
    values: ValuesMut<'a>,
    layout: Layout,
    output: Output,
    alpha: f32,
}

/// As [`super::product`], with the given instructions.
pub(super) fn product(
    isa: Isa,
    area: Area,
    c: MatrixMut<'_>,
    output: Output,
    alpha: f32,
    a: Matrix<'_>,
    b: Right<'_>,
) {
    let (rows, cols, depth) = (c.layout.rows, c.layout.cols, a.layout.cols);
    let fits = a.layout.rows == rows && b.extents() == (depth, cols);
    assert!(fits, "[{rows}, {cols}] from {:?} and {:?}", a.layout, b.extents());
    assert!(area == Area::Whole || rows == cols, "only a square matrix is symmetric");
    if rows == 0 || cols == 0 {
        return;
    }
    let (isa, precision) = match b {
        Right::Plain(b) => (isa, Precision::of(isa, a.is_bf16() && b.is_bf16())),
        Right::Packed { packed, .. } => (packed.isa, packed.precision),
    };
    let fits = precision == Precision::F32 || a.is_bf16();
    assert!(fits, "a packed factor of BF16 has a left factor of BF16");
    let target = Target { values: c.values, layout: c.layout, output, alpha };
    match (precision, isa) {
        #[cfg(target_arch = "x86_64")]
        (Precision::Bf16, Isa::Amx) => walk(&Amx::new(), area, target, a, b),
        #[cfg(target_arch = "x86_64")]
        (Precision::Bf16, _) => walk(&Dot, area, target, a, b),
        _ => walk(&Wide::new(isa), area, target, a, b),
    }
}

/// All panels of a right factor.
pub(super) fn pack(isa: Isa, precision: Precision, b: Matrix<'_>) -> Lines {
    let mut panels = Lines::default();
    let all = 0..b.layout.cols.div_ceil(PANEL);
    match (precision, isa) {
        #[cfg(target_arch = "x86_64")]
        (Precision::Bf16, _) => pack_group(&Dot, &b, all, &mut panels),
        _ => pack_group(&Wide::new(isa), &b, all, &mut panels),
    }
    panels
}

fn walk<K: Kernel>(kernel: &K, area: Area, target: Target<'_>, a: Matrix<'_>, b: Right<'_>) {
    let (panels, depth) = (target.layout.cols.div_ceil(PANEL), a.layout.cols);
    let packed_depth = if let Right::Packed { packed, .. } = b { packed.rows } else { depth };
    let (len, part) = (kernel.panel_len(packed_depth), kernel.panel_len(depth.min(PART)));
    let group = (GROUP / (part * size_of::<K::Number>()).max(1)).clamp(1, panels);
    let size = block_size(target.layout.rows, kernel.rows());
    SCRATCH.with_borrow_mut(|Scratch { band, panels: scratch, tiles }| {
        let mut way = Way { kernel, area, target, a, size, len, band, tiles };
        for first in (0..panels).step_by(group) {
            let group = first..panels.min(first + group);
            match &b {
                Right::Packed { packed, .. } => {
                    way.through(group, &packed.panels.get()[first * len..]);
                }
                Right::Plain(b) => {
                    pack_group(kernel, b, group.clone(), scratch);
                    way.through(group, scratch.get());
                }
            }
        }
    });
}

/// Everything that stays the same from group to group.
struct Way<'a, K> {
    kernel: &'a K,
    area: Area,
    target: Target<'a>,
    a: Matrix<'a>,
    /// Rows of a block.
    size: usize,
    /// Numbers of a panel over the whole depth.
    len: usize,
    band: &'a mut Lines,
    tiles: &'a mut Vec<Tile>,
}

impl<K: Kernel> Way<'_, K> {
    /// All rows times the panels of a group, which are packed one after the other.
    fn through(&mut self, group: Range<usize>, panels: &[K::Number]) {
        let rows = self.target.layout.rows;
        for first in (0..rows).step_by(BAND * self.size) {
            let band = first..rows.min(first + BAND * self.size);
            if self.area == Area::Lower && band.end <= group.start * PANEL {
                continue;
            }
            let depth = self.a.layout.cols;
            let tiles = if depth <= PART { 1 } else { group.len() * BAND };
            if self.tiles.len() < tiles {
                self.tiles.resize(tiles, [0.0; MOST_ROWS * PANEL]);
            }
            for part in (0..depth.max(1)).step_by(PART) {
                let part = part..depth.min(part + PART);
                self.multiply(band.clone(), part, group.clone(), panels);
            }
        }
    }

    /// One part of a band times that of a group; stores the tiles after the last part.
    fn multiply(
        &mut self,
        band: Range<usize>,
        part: Range<usize>,
        group: Range<usize>,
        panels: &[K::Number],
    ) {
        let (depth, size, len) = (self.a.layout.cols, self.size, self.len);
        let skipped = self.kernel.panel_len(part.start);
        let rows = Strip::of_rows(&self.a, band.clone(), part.clone());
        self.kernel.pack_band(&rows, size, self.band);
        for (number, first) in band.clone().step_by(size).enumerate() {
            let rows = first..band.end.min(first + size);
            let strip = Strip::of_rows(&self.a, rows.clone(), part.clone());
            let block = Block { band: self.band, number, rows: strip };
            for panel in group.clone() {
                if self.area == Area::Lower && rows.end <= panel * PANEL {
                    break;
                }
                let at = panel - group.start;
                let numbers = &panels[at * len + skipped..][..self.kernel.panel_len(part.len())];
                // A tile that is done at once is always the same one, which stays in the cache.
                let is_only = part.len() == depth;
                let tile = if is_only { 0 } else { number * group.len() + at };
                let tile = &mut self.tiles[tile];
                self.kernel.multiply(block, numbers, part.start == 0, tile);
                if part.end == depth {
                    self.target.store(tile, rows.clone(), panel * PANEL);
                }
            }
        }
    }
}

fn pack_group<K: Kernel>(kernel: &K, b: &Matrix<'_>, group: Range<usize>, panels: &mut Lines) {
    let depth = b.layout.rows;
    let len = kernel.panel_len(depth);
    let numbers = panels.at_least(group.len() * len);
    for (panel, numbers) in group.zip(numbers.chunks_exact_mut(len.max(1))) {
        let cols = panel * PANEL..b.layout.cols.min((panel + 1) * PANEL);
        kernel.pack_panel(&Strip::of_cols(b, cols, 0..depth), numbers);
    }
}

/// Rows of a block, so that all blocks have nearly as many.
fn block_size(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most))
}

impl Target<'_> {
    fn store(&mut self, tile: &Tile, rows: Range<usize>, first: usize) {
        let Layout { cols, row_stride, .. } = self.layout;
        let cols = PANEL.min(cols - first);
        let from = rows.start * row_stride + first;
        let tile = &tile[..rows.len() * PANEL];
        let (alpha, stride) = (self.alpha, row_stride);
        match (&mut self.values, self.output) {
            (ValuesMut::F32(c), Output::Write) => write(tile, alpha, &mut c[from..], cols, stride),
            (ValuesMut::F32(c), Output::Add) => add(tile, alpha, &mut c[from..], cols, stride),
            (ValuesMut::Bf16(c), Output::Write) => write(tile, alpha, &mut c[from..], cols, stride),
            (ValuesMut::Bf16(c), Output::Add) => add(tile, alpha, &mut c[from..], cols, stride),
            (ValuesMut::NewF32(c), Output::Write) => {
                write_new(tile, alpha, &mut c[from..], cols, stride);
            }
            (ValuesMut::NewBf16(c), Output::Write) => {
                write_new(tile, alpha, &mut c[from..], cols, stride);
            }
            (ValuesMut::NewF32(_) | ValuesMut::NewBf16(_), Output::Add) => {
                unreachable!("nothing stands in new memory that could be added to")
            }
        }
    }
}

/// Calls `each` with every element of `c` and of the tile.
#[inline(always)]
fn each<T>(tile: &[f32], c: &mut [T], cols: usize, stride: usize, each: impl Fn(&mut T, f32)) {
    for (row, tile) in tile.chunks_exact(PANEL).enumerate() {
        let c = &mut c[row * stride..][..cols];
        // A known number of columns makes whole vectors.
        match <&mut [T; PANEL]>::try_from(&mut *c) {
            Ok(c) => c.iter_mut().zip(tile).for_each(|(c, x)| each(c, *x)),
            Err(_) => c.iter_mut().zip(tile).for_each(|(c, x)| each(c, *x)),
        }
    }
}

vectorised! {
    fn write<N: Number>(tile: &[f32], alpha: f32, c: &mut [N], cols: usize, stride: usize) {
        each(tile, c, cols, stride, |c, x| *c = N::nearest(alpha * x));
    }

    fn add<N: Number>(tile: &[f32], alpha: f32, c: &mut [N], cols: usize, stride: usize) {
        each(tile, c, cols, stride, |c, x| *c = N::nearest(c.wide() + alpha * x));
    }

    fn write_new<N: Number>(
        tile: &[f32],
        alpha: f32,
        c: &mut [MaybeUninit<N>],
        cols: usize,
        stride: usize,
    ) {
        each(tile, c, cols, stride, |c, x| {
            c.write(N::nearest(alpha * x));
        });
    }
}
