//! Cross-entropy, whole and in chunks.

use half::bf16;
use kernels::{
    cross_entropy::{self, LogSums},
    cuda::{DeviceError, Float, cross_entropy as device},
};

use crate::bed::{Bed, Same, named};

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    for (tokens, vocab, chunk) in [(0, 5, 5), (1, 1, 1), (5, 40, 7), (9, 2050, 2050), (3, 300, 256)]
    {
        summed(bed, tokens, vocab, chunk)?;
        gradient::<f32>(bed, tokens, vocab, chunk)?;
        gradient::<bf16>(bed, tokens, vocab, chunk)?;
    }
    Ok(())
}

/// Targets of which the last has no loss.
fn targets(bed: &mut Bed, tokens: usize, vocab: usize) -> Vec<i32> {
    let mut targets = bed.below(tokens, vocab);
    if let Some(last) = targets.last_mut().filter(|_| 1 < tokens) {
        *last = -1;
    }
    targets
}

/// Columns `first..` of the logits of all tokens.
fn chunk_of(logits: &[f32], vocab: usize, first: usize, cols: usize) -> Vec<f32> {
    logits.chunks(vocab).flat_map(|row| row[first..first + cols].to_vec()).collect()
}

fn summed(bed: &mut Bed, tokens: usize, vocab: usize, chunk: usize) -> Result<(), DeviceError> {
    let logits: Vec<f32> = bed.normal(tokens * vocab, 10.0);
    let targets = targets(bed, tokens, vocab);
    let on_targets = bed.up(&targets)?;
    let mut largest = bed.up(&vec![f32::NEG_INFINITY; tokens])?;
    let (mut sums, mut picked) = (bed.up(&vec![0.0_f32; tokens])?, bed.up(&vec![0.0_f32; tokens])?);
    let (mut on_cpu, mut expected) = (LogSums::new(tokens), vec![0.0; tokens]);
    let stream = bed.stream.clone();
    for first in (0..vocab).step_by(chunk) {
        let cols = chunk.min(vocab - first);
        let part = chunk_of(&logits, vocab, first, cols);
        let on_part = bed.up(&part)?;
        device::extend(&stream, on_part.view(), cols, largest.view_mut(), sums.view_mut())?;
        let (t, to) = (on_targets.view(), picked.view_mut());
        device::pick(&stream, on_part.view(), cols, first, t, to)?;
        on_cpu.extend(0..tokens, &part, cols);
        cross_entropy::pick(&part, cols, first, &targets, &mut expected);
    }
    let mut log_sums = bed.poisoned(tokens)?;
    device::finish(&stream, largest.view(), sums.view(), log_sums.view_mut())?;
    bed.close(&format!("log_sums {tokens} {vocab}"), &log_sums, &on_cpu.finish(), 1e-6)?;
    bed.same(&format!("picked {tokens} {vocab}"), &picked, &expected)
}

fn gradient<N: Float + Same>(
    bed: &mut Bed,
    tokens: usize,
    vocab: usize,
    chunk: usize,
) -> Result<(), DeviceError> {
    let logits: Vec<f32> = bed.normal(tokens * vocab, 3.0);
    let targets = targets(bed, tokens, vocab);
    let mut all = LogSums::new(tokens);
    all.extend(0..tokens, &logits, vocab);
    let log_sums = all.finish();
    let (on_targets, on_log_sums) = (bed.up(&targets)?, bed.up(&log_sums)?);
    for first in (0..vocab).step_by(chunk) {
        let cols = chunk.min(vocab - first);
        let part = chunk_of(&logits, vocab, first, cols);
        let mut expected = vec![N::ZERO; part.len()];
        let sums = &log_sums;
        cross_entropy::gradient(&part, cols, first, sums, &targets, 0.25, &mut expected);
        let (on_part, mut out) = (bed.up(&part)?, bed.poisoned(part.len())?);
        let (s, t) = (on_log_sums.view(), on_targets.view());
        let (from, to) = (on_part.view(), out.view_mut());
        device::gradient(&bed.stream, from, cols, first, s, t, 0.25, to)?;
        bed.same(&named::<N>("dlogits", (tokens, vocab, first)), &out, &expected)?;
    }
    Ok(())
}
