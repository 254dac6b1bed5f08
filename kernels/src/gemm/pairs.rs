//! Packing of lines that lie side by side: pairs of the numbers at two neighbouring depths.
//!
//! What is next to each other in memory is read while the cache has it: all 32 columns of a panel,
//! all blocks of a band, before the next two depths.

use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};
use half::bf16;

use super::{strip::Strip, walk::PANEL};
use crate::vector::vectorised;

/// Lines that are paired at a time, which make one vector.
const SIDE: usize = 16;

/// Pairs of as many lines.
type Pairs = [[u16; 2]; SIDE];

/// What is paired with a last depth that has no neighbour.
const ZEROS: [u16; 2 * SIDE] = [0; 2 * SIDE];

/// Pairs of 16 lines from the given one on, at each pair of depths; lines after the last are
/// whatever comes next and are never used. After the last depth come zeros.
pub(super) fn interleave(
    from: &[bf16],
    strip: &Strip<'_>,
    first_line: usize,
    depth: Range<usize>,
    to: &mut [bf16],
) {
    if !depth.is_empty() {
        let from = &from[strip.at(depth.start) + first_line..];
        let lines = (strip.lines - first_line).min(SIDE);
        pairs(cast_slice(from), strip.stride(), lines, depth.len(), cast_slice_mut(to));
    }
}

/// Pairs of all lines in blocks of `size`, which begin `block` numbers apart: 16 lines for each,
/// those after the last being whatever comes next.
pub(super) fn blocks(
    from: &[bf16],
    strip: &Strip<'_>,
    size: usize,
    block: usize,
    band: &mut [bf16],
) {
    let (stride, lines, depth) = (strip.stride(), strip.lines, strip.depth);
    band_of(cast_slice(from), stride, lines, depth, size, block / 2 / SIDE, cast_slice_mut(band));
}

/// Pairs of the 32 columns of a panel: 16 pairs of depths of the first 16 columns, as many of the
/// others, and so on.
pub(super) fn panel(from: &[bf16], strip: &Strip<'_>, panel: &mut [bf16]) {
    debug_assert_eq!(strip.lines, PANEL);
    panel_of(cast_slice(from), strip.stride(), strip.depth, cast_slice_mut(panel));
}

#[inline(always)]
fn paired(first: &[u16; SIDE], second: &[u16; SIDE]) -> Pairs {
    std::array::from_fn(|i| [first[i], second[i]])
}

/// Apart, so that loops over whole vectors stay small.
#[cold]
#[inline(never)]
fn some_paired(first: &[u16], second: &[u16], to: &mut Pairs) {
    to.iter_mut().zip(first.iter().zip(second)).for_each(|(to, (a, b))| *to = [*a, *b]);
}

vectorised! {
    fn pairs(from: &[u16], stride: usize, lines: usize, depth: usize, to: &mut [Pairs]) {
        for (pair, to) in to.iter_mut().enumerate().take(depth.div_ceil(2)) {
            let first = &from[2 * pair * stride..];
            let second = if 2 * pair + 1 < depth { &first[stride..] } else { &ZEROS };
            match (first.first_chunk(), second.first_chunk()) {
                (Some(first), Some(second)) => *to = paired(first, second),
                _ => some_paired(&first[..lines], second, to),
            }
        }
    }

    fn band_of(
        from: &[u16],
        stride: usize,
        lines: usize,
        depth: usize,
        size: usize,
        block: usize,
        band: &mut [Pairs],
    ) {
        for pair in 0..depth.div_ceil(2) {
            let first = &from[2 * pair * stride..];
            let is_last = 2 * pair + 1 == depth;
            let second = if is_last { first } else { &first[stride..] };
            let mut line = 0;
            for to in band[pair..].iter_mut().step_by(block) {
                if line >= lines {
                    break;
                }
                let (first, second) = (&first[line..], &second[line..]);
                match (first.first_chunk(), second.first_chunk()) {
                    (Some(first), Some(second)) if !is_last => *to = paired(first, second),
                    _ => {
                        let count = size.min(lines - line);
                        let second = if is_last { &ZEROS } else { second };
                        some_paired(&first[..count], second, to);
                    }
                }
                line += size;
            }
        }
    }

    fn panel_of(from: &[u16], stride: usize, depth: usize, panel: &mut [Pairs]) {
        for (square, to) in panel.chunks_exact_mut(2 * SIDE).enumerate() {
            let (left, right) = to.split_at_mut(SIDE);
            for (pair, (left, right)) in left.iter_mut().zip(right).enumerate() {
                let k = 2 * (square * SIDE + pair);
                if k >= depth {
                    return;
                }
                let first = from[k * stride..].first_chunk::<{ 2 * SIDE }>();
                let first = first.expect("32 columns");
                let second = if k + 1 == depth { Some(&ZEROS) } else {
                    from[(k + 1) * stride..].first_chunk()
                };
                let second = second.expect("32 columns");
                let half = |of: &[u16; 2 * SIDE], at: usize| -> [u16; SIDE] {
                    std::array::from_fn(|i| of[at * SIDE + i])
                };
                *left = paired(&half(first, 0), &half(second, 0));
                *right = paired(&half(first, 1), &half(second, 1));
            }
        }
    }
}
