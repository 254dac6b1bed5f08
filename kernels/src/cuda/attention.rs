//! Attention on a device; formulas and layouts in [`crate::attention`].

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::Launch,
    program::{Program, Source, Widths},
    reduce::largest_of_columns,
};
use crate::attention::Heads;

/// Threads of a warp.
const WARP: usize = 32;

/// What attention reads; not yet turned.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, N> {
    /// `[t, h, nope+rope]`.
    pub q: View<'a, N>,
    /// `[t, h, nope+value]`.
    pub kv: View<'a, N>,
    /// `[t, rope]`.
    pub k_rope: View<'a, N>,
}

/// Gradients of the three inputs, in their layouts; written, not added to.
#[derive(Debug)]
pub struct Gradients<'a, N> {
    /// `[t, h, nope+rope]`.
    pub q: ViewMut<'a, N>,
    /// `[t, h, nope+value]`.
    pub kv: ViewMut<'a, N>,
    /// `[t, rope]`.
    pub k_rope: ViewMut<'a, N>,
}

/// Memory of the backward pass, whose content is lost.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// `[t, h]`.
    pub along: ViewMut<'a, f32>,
    /// `[t, h, rope]`.
    pub k_rope: ViewMut<'a, f32>,
}

/// How a pass is cut into blocks.
struct Blocks {
    /// Rows of a block's own tile.
    own: usize,
    threads: u32,
    /// Of shared memory.
    bytes: usize,
}

/// Widths of tiles in shared memory, as in `attention/tile.cuh`, in elements of the format.
struct Tiles {
    other: usize,
    key: usize,
    value: usize,
    score: usize,
    bytes: usize,
}

impl Tiles {
    fn of<N: Float>(heads: &Heads) -> Self {
        let bytes = size_of::<N>();
        let (padding, other) = (16 / bytes, if bytes == 2 { 64 } else { 32 });
        let key = (heads.nope + heads.rope).next_multiple_of(32) + padding;
        let value = heads.value.next_multiple_of(32) + padding;
        Tiles { other, key, value, score: other + padding, bytes }
    }

    fn forward(&self) -> Blocks {
        let &Tiles { other, key, value, score, bytes } = self;
        let own = 64;
        Blocks { own, threads: 128, bytes: bytes * (own * (key + score) + other * (key + value)) }
    }

    fn backward(&self) -> Blocks {
        let &Tiles { other, key, value, score, bytes } = self;
        let own = 64;
        let numbers = (own + other) * (key + value) + 2 * own * score;
        Blocks { own, threads: 256, bytes: bytes * numbers + 2 * own * size_of::<f32>() }
    }
}

/// Columns of tiles in shared memory, as in `attention/panels.cuh`: whole panels.
struct Panels {
    key: usize,
    value: usize,
}

impl Panels {
    fn of(heads: &Heads) -> Self {
        let whole = |width: usize| width.next_multiple_of(64);
        Panels { key: whole(heads.nope + heads.rope), value: whole(heads.value) }
    }

    fn forward(&self) -> Blocks {
        let (own, other) = (128, 128);
        let numbers = own * self.key + 2 * other * (self.key + self.value);
        Blocks { own, threads: 256, bytes: numbers * size_of::<u16>() }
    }

    fn backward(&self) -> Blocks {
        let (own, other, stages) = (128, 64, 3);
        let numbers = (own + stages * other) * (self.key + self.value);
        Blocks { own, threads: 256, bytes: numbers * size_of::<u16>() }
    }
}

/// Checks the lengths and returns tokens and sequences.
fn assert_fit<N>(
    heads: &Heads,
    turns: &View<'_, f32>,
    sequence: usize,
    x: &Inputs<'_, N>,
    log_sums: usize,
) -> (usize, usize) {
    let &Heads { heads: h, nope, rope, value, .. } = heads;
    let tokens = log_sums / h;
    let sequences = tokens / sequence;
    assert_eq!(log_sums, sequences * sequence * h, "whole sequences of {sequence}");
    assert_eq!(x.q.len(), tokens * h * (nope + rope), "q [t, h, nope+rope]");
    assert_eq!(x.kv.len(), tokens * h * (nope + value), "kv [t, h, nope+value]");
    assert_eq!(x.k_rope.len(), tokens * rope, "k_rope [t, rope]");
    assert_eq!(turns.len(), sequence * rope, "angles of {sequence} positions");
    assert!(0.0 < heads.scale, "a scale that is not positive");
    // Then rows are copied in groups of eight numbers.
    if [nope, rope, value].iter().all(|width| width.is_multiple_of(8)) {
        let begins = [x.q.at(), x.kv.at(), x.k_rope.at(), turns.at()];
        assert!(begins.iter().all(|at| at.is_multiple_of(16)), "inputs that are not aligned");
    }
    assert!(h < 65_536 && sequences < 65_536, "{h} heads of {sequences} sequences at once");
    (tokens, sequences)
}

/// A kernel with the arguments that all of attention's begin with.
fn begun<'a, N: Float>(
    launch: Launch<'a>,
    heads: &Heads,
    turns: View<'_, f32>,
    sequence: usize,
    x: &Inputs<'_, N>,
) -> Launch<'a> {
    let launch = launch.read(x.q).read(x.kv).read(x.k_rope).read(turns).count(sequence);
    launch.count(heads.heads).float(heads.scale)
}

/// Whether a source's products on a stream's device are those of warpgroups.
fn has_warpgroups<N: Float>(stream: &Stream, source: Source) -> bool {
    let program = Program { source, format: N::FORMAT };
    program.has_warpgroups(&stream.device().found().architecture())
}

/// Writes `y [t, h, value]`, the log-sum-exp and the largest softmax input of each (token, head),
/// both `[t, h]`, and the largest of each head.
///
/// `turns [sequence, rope / 2, 2]` are the cosines and sines of the positions of one sequence; the
/// tokens are whole sequences. The content of `turned [t, rope]` and `largest_of_rows` is lost.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched, or the heads are so wide that its
/// tiles do not fit into shared memory.
///
/// # Panics
///
/// If the lengths do not fit each other, a width of the key is odd, the scale is not positive, or a
/// tensor of heads whose widths are multiples of eight begins beside a multiple of 16 bytes.
pub fn forward<N: Float>(
    stream: &Stream,
    heads: &Heads,
    turns: View<'_, f32>,
    sequence: usize,
    x: Inputs<'_, N>,
    mut turned: ViewMut<'_, N>,
    y: ViewMut<'_, N>,
    log_sums: ViewMut<'_, f32>,
    mut largest_of_rows: ViewMut<'_, f32>,
    largest: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let (tokens, sequences) = assert_fit(heads, &turns, sequence, &x, log_sums.len());
    assert_eq!(turned.len(), x.k_rope.len(), "turned [t, rope]");
    assert_eq!(y.len(), tokens * heads.heads * heads.value, "y [t, h, value]");
    assert_eq!(largest_of_rows.len(), log_sums.len(), "largest [t, h]");
    assert_eq!(largest.len(), heads.heads, "largest [h]");
    let source = Source::AttentionForward(Widths::of(heads));
    let kernel = |name| Launch::of::<N>(stream, source, name);
    let launch = kernel("attention_turn_keys").read(x.k_rope).read(turns).count(tokens);
    launch.count(sequence).write(turned.again()).each(x.k_rope.len() / 2)?;
    let x = Inputs { k_rope: turned.view(), ..x };
    let Blocks { own, threads, bytes } = match has_warpgroups::<N>(stream, source) {
        true => Panels::of(heads).forward(),
        false => Tiles::of::<N>(heads).forward(),
    };
    let launch = begun(kernel("attention_forward"), heads, turns, sequence, &x);
    let launch = launch.write(y).write(log_sums).write(largest_of_rows.again()).shared(bytes);
    launch.go((sequence.div_ceil(own), heads.heads, sequences), (threads, 1, 1))?;
    largest_of_columns(stream, largest_of_rows.view(), largest)
}

/// Writes the gradients of the inputs, given those of `y` and the saved log-sum-exps.
///
/// With `y [t, h, value]`, `along = sum_u p dp` of each (token, head) is a sum over its columns;
/// without it, a sweep over all keys, 22 % of all products then.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched, or the heads are so wide that its
/// tiles do not fit into shared memory.
///
/// # Panics
///
/// If the lengths do not fit each other, a width of the key is odd, the scale is not positive, or a
/// tensor of heads whose widths are multiples of eight begins beside a multiple of 16 bytes.
pub fn backward<N: Float>(
    stream: &Stream,
    heads: &Heads,
    turns: View<'_, f32>,
    sequence: usize,
    x: Inputs<'_, N>,
    log_sums: View<'_, f32>,
    y: Option<View<'_, N>>,
    dy: View<'_, N>,
    scratch: Scratch<'_>,
    dx: Gradients<'_, N>,
) -> Result<(), DeviceError> {
    let (tokens, sequences) = assert_fit(heads, &turns, sequence, &x, log_sums.len());
    let Scratch { mut along, k_rope: mut of_heads } = scratch;
    let Gradients { q: mut dq, kv: dkv, k_rope: mut dk_rope } = dx;
    assert_eq!(dy.len(), tokens * heads.heads * heads.value, "dy [t, h, value]");
    assert!(y.is_none_or(|y| y.len() == dy.len()), "y [t, h, value]");
    assert_eq!(along.len(), log_sums.len(), "along [t, h]");
    assert_eq!(of_heads.len(), tokens * heads.heads * heads.rope, "k_rope [t, h, rope]");
    let lengths = (dq.len(), dkv.len(), dk_rope.len());
    assert_eq!(lengths, (x.q.len(), x.kv.len(), x.k_rope.len()), "gradients");

    let source = Source::AttentionBackward(Widths::of(heads));
    let kernel = |name| Launch::of::<N>(stream, source, name);
    // Until their gradients are written, dk_rope and the rotary part of dq are the turned ones.
    let launch = kernel("attention_turn_keys").read(x.k_rope).read(turns).count(tokens);
    launch.count(sequence).write(dk_rope.again()).each(dk_rope.len() / 2)?;
    let launch = kernel("attention_begin_rows").read(x.q).read(turns).count(log_sums.len());
    let launch = launch.count(sequence).count(heads.heads);
    let launch = launch.number(y.map_or(0, |y| y.at())).read(dy);
    launch.write(dq.again()).write(along.again()).each(log_sums.len() * WARP)?;

    let Blocks { own, threads, bytes } = match has_warpgroups::<N>(stream, source) {
        true => Panels::of(heads).backward(),
        false => Tiles::of::<N>(heads).backward(),
    };
    let grid = (sequence.div_ceil(own), heads.heads, sequences);
    let x = Inputs { k_rope: dk_rope.view(), ..x };
    let pass = |name| begun(kernel(name), heads, turns, sequence, &x).read(log_sums).shared(bytes);
    if y.is_none() {
        let launch = pass("attention_sum_along").read(dy).read(dq.view());
        launch.write(along.again()).go(grid, (threads, 1, 1))?;
    }
    let launch = pass("attention_backward_keys").read(along.view()).read(dy).read(dq.view());
    launch.write(dkv).write(of_heads.again()).go(grid, (threads, 1, 1))?;
    let launch = pass("attention_backward_queries").read(along.view()).read(dy);
    launch.write(dq).go(grid, (threads, 1, 1))?;

    let launch = kernel("attention_join_rope").read(of_heads.view()).read(turns).count(tokens);
    let launch = launch.count(sequence).count(heads.heads).write(dk_rope);
    launch.each(tokens * heads.rope / 2)
}
