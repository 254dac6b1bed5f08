//! Attention on a device; formulas and layouts in [`crate::attention`].

use super::{
    DeviceError, Float, Stream, View, ViewMut,
    launch::Launch,
    program::{Source, Widths},
    reduce::largest_of_columns,
};
use crate::attention::Heads;

/// Rows of a block's own tile, as in `attention/tile.cuh`.
const OWN: usize = 64;

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

/// Tiles in shared memory, in elements of the format.
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

    fn forward_bytes(&self) -> usize {
        let &Tiles { other, key, value, score, bytes } = self;
        bytes * (OWN * key + other * (key + value) + OWN * score)
    }

    fn backward_bytes(&self) -> usize {
        let &Tiles { other, key, value, score, bytes } = self;
        bytes * ((OWN + other) * (key + value) + 2 * OWN * score) + 2 * OWN * size_of::<f32>()
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

/// Writes `y [t, h, value]`, the log-sum-exp and the largest softmax input of each (token, head),
/// both `[t, h]`, and the largest of each head.
///
/// `turns [sequence, rope / 2, 2]` are the cosines and sines of the positions of one sequence; the
/// tokens are whole sequences.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched, or the heads are so wide that its
/// tiles do not fit into shared memory.
///
/// # Panics
///
/// If the lengths do not fit each other, or a width of the key is odd.
pub fn forward<N: Float>(
    stream: &Stream,
    heads: &Heads,
    turns: View<'_, f32>,
    sequence: usize,
    x: Inputs<'_, N>,
    y: ViewMut<'_, N>,
    log_sums: ViewMut<'_, f32>,
    mut largest_of_rows: ViewMut<'_, f32>,
    largest: ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let (tokens, sequences) = assert_fit(heads, &turns, sequence, &x, log_sums.len());
    assert_eq!(y.len(), tokens * heads.heads * heads.value, "y [t, h, value]");
    assert_eq!(largest_of_rows.len(), log_sums.len(), "largest [t, h]");
    assert_eq!(largest.len(), heads.heads, "largest [h]");
    let source = Source::AttentionForward(Widths::of(heads));
    let launch = Launch::of::<N>(stream, source, "attention_forward");
    let launch = begun(launch, heads, turns, sequence, &x);
    let launch = launch.write(y).write(log_sums).write(largest_of_rows.again());
    let launch = launch.shared(Tiles::of::<N>(heads).forward_bytes());
    launch.go((sequence.div_ceil(OWN), heads.heads, sequences), (128, 1, 1))?;
    largest_of_columns(stream, largest_of_rows.view(), largest)
}

/// Writes the gradients of the inputs, given those of `y` and the saved log-sum-exps.
///
/// # Errors
///
/// [`DeviceError`] if the kernel cannot be compiled or launched, or the heads are so wide that its
/// tiles do not fit into shared memory.
///
/// # Panics
///
/// If the lengths do not fit each other, or a width of the key is odd.
pub fn backward<N: Float>(
    stream: &Stream,
    heads: &Heads,
    turns: View<'_, f32>,
    sequence: usize,
    x: Inputs<'_, N>,
    log_sums: View<'_, f32>,
    dy: View<'_, N>,
    scratch: Scratch<'_>,
    dx: Gradients<'_, N>,
) -> Result<(), DeviceError> {
    let (tokens, sequences) = assert_fit(heads, &turns, sequence, &x, log_sums.len());
    let Scratch { mut along, mut k_rope } = scratch;
    assert_eq!(dy.len(), tokens * heads.heads * heads.value, "dy [t, h, value]");
    assert_eq!(along.len(), log_sums.len(), "along [t, h]");
    assert_eq!(k_rope.len(), tokens * heads.heads * heads.rope, "k_rope [t, h, rope]");
    let (dq, dkv, dk_rope) = (dx.q.len(), dx.kv.len(), dx.k_rope.len());
    assert_eq!((dq, dkv, dk_rope), (x.q.len(), x.kv.len(), x.k_rope.len()), "gradients");
    let source = Source::AttentionBackward(Widths::of(heads));
    let bytes = Tiles::of::<N>(heads).backward_bytes();
    let grid = (sequence.div_ceil(OWN), heads.heads, sequences);
    let kernel = |name| Launch::of::<N>(stream, source, name);

    let launch = begun(kernel("attention_backward_queries"), heads, turns, sequence, &x);
    let launch = launch.read(log_sums).read(dy).write(dx.q).write(along.again());
    launch.shared(bytes).go(grid, (256, 1, 1))?;

    let launch = begun(kernel("attention_backward_keys"), heads, turns, sequence, &x);
    let launch = launch.read(log_sums).read(along.view()).read(dy);
    let launch = launch.write(dx.kv).write(k_rope.again());
    launch.shared(bytes).go(grid, (256, 1, 1))?;

    let launch = kernel("attention_join_rope").read(k_rope.view()).read(turns).count(tokens);
    let launch = launch.count(sequence).count(heads.heads).write(dx.k_rope);
    launch.each(tokens * heads.rope / 2)
}
