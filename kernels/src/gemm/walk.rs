//! The way through a product: groups of panels that stay in the second cache, in each all blocks
//! of rows, for each all panels of the group.

use std::{cell::RefCell, ops::Range};

use bytemuck::Pod;
use half::bf16;

use super::{
    Layout, Matrix, MatrixMut, Output, Right, ValuesMut, isa::Isa, lines::Lines, strip::Strip,
    wide::Wide,
};
#[cfg(target_arch = "x86_64")]
use super::{dot::Dot, tiles::Amx};
use crate::vector::vectorised;

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Rows of a block at most, in any kernel.
const MOST_ROWS: usize = 32;

/// Bytes of the panels of a group: half of a second cache of a megabyte.
const GROUP: usize = 512 << 10;

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

    /// Packs some rows of the left factor into the scratch.
    fn pack_block(&self, rows: &Strip<'_>, block: &mut Lines);

    /// Packs some columns of the right factor, at most 32, and zeros for the others.
    fn pack_panel(&self, cols: &Strip<'_>, panel: &mut [Self::Number]);

    /// Writes the product of the rows that were packed last and a panel.
    fn multiply(&self, rows: &Strip<'_>, block: &Lines, panel: &[Self::Number], tile: &mut Tile);
}

/// Memory that every thread keeps between products.
#[derive(Default)]
struct Scratch {
    block: Lines,
    panels: Lines,
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
        Right::Packed(packed) => (packed.isa, packed.precision),
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

fn walk<K: Kernel>(kernel: &K, area: Area, mut target: Target<'_>, a: Matrix<'_>, b: Right<'_>) {
    let (rows, depth) = (target.layout.rows, a.layout.cols);
    let panels = target.layout.cols.div_ceil(PANEL);
    let len = kernel.panel_len(depth);
    let group = (GROUP / (len * size_of::<K::Number>()).max(1)).clamp(1, panels);
    let mut tile = [0.0; MOST_ROWS * PANEL];
    SCRATCH.with_borrow_mut(|scratch| {
        for first in (0..panels).step_by(group) {
            let group = first..panels.min(first + group);
            let packed = match &b {
                Right::Packed(packed) => &packed.panels.get()[first * len..],
                Right::Plain(b) => {
                    pack_group(kernel, b, group.clone(), &mut scratch.panels);
                    scratch.panels.get()
                }
            };
            for block in blocks(rows, kernel.rows()) {
                if area == Area::Lower && block.end <= first * PANEL {
                    continue;
                }
                let rows = Strip::of_rows(&a, block.clone());
                kernel.pack_block(&rows, &mut scratch.block);
                for panel in group.clone() {
                    if area == Area::Lower && block.end <= panel * PANEL {
                        break;
                    }
                    let numbers = &packed[(panel - group.start) * len..][..len];
                    kernel.multiply(&rows, &scratch.block, numbers, &mut tile);
                    target.store(&tile, block.clone(), panel * PANEL);
                }
            }
        }
    });
}

fn pack_group<K: Kernel>(kernel: &K, b: &Matrix<'_>, group: Range<usize>, panels: &mut Lines) {
    let len = kernel.panel_len(b.layout.rows);
    let numbers = panels.at_least(group.len() * len);
    for (panel, numbers) in group.zip(numbers.chunks_exact_mut(len.max(1))) {
        let cols = panel * PANEL..b.layout.cols.min((panel + 1) * PANEL);
        kernel.pack_panel(&Strip::of_cols(b, cols), numbers);
    }
}

/// Blocks of nearly equal numbers of rows.
fn blocks(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let size = rows.div_ceil(rows.div_ceil(most));
    (0..rows).step_by(size).map(move |first| first..rows.min(first + size))
}

impl Target<'_> {
    fn store(&mut self, tile: &Tile, rows: Range<usize>, first: usize) {
        let Layout { cols, row_stride, .. } = self.layout;
        let cols = PANEL.min(cols - first);
        let from = rows.start * row_stride + first;
        let tile = &tile[..rows.len() * PANEL];
        match (&mut self.values, self.output) {
            (ValuesMut::F32(c), Output::Write) => {
                write(tile, self.alpha, &mut c[from..], cols, row_stride);
            }
            (ValuesMut::F32(c), Output::Add) => {
                add(tile, self.alpha, &mut c[from..], cols, row_stride);
            }
            (ValuesMut::Bf16(c), Output::Write) => {
                write_rounded(tile, self.alpha, &mut c[from..], cols, row_stride);
            }
            (ValuesMut::Bf16(c), Output::Add) => {
                add_rounded(tile, self.alpha, &mut c[from..], cols, row_stride);
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
    fn write(tile: &[f32], alpha: f32, c: &mut [f32], cols: usize, stride: usize) {
        each(tile, c, cols, stride, |c, x| *c = alpha * x);
    }

    fn add(tile: &[f32], alpha: f32, c: &mut [f32], cols: usize, stride: usize) {
        each(tile, c, cols, stride, |c, x| *c += alpha * x);
    }

    fn write_rounded(tile: &[f32], alpha: f32, c: &mut [bf16], cols: usize, stride: usize) {
        each(tile, c, cols, stride, |c, x| *c = crate::cast::rounded(alpha * x));
    }

    fn add_rounded(tile: &[f32], alpha: f32, c: &mut [bf16], cols: usize, stride: usize) {
        let wide = crate::cast::widened;
        each(tile, c, cols, stride, |c, x| *c = crate::cast::rounded(wide(*c) + alpha * x));
    }
}
