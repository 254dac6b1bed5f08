//! DualPipeV: DeepSeek's DualPipe cut in half, on a V of two chunks a stage, one copy of weights.
//!
//! DeepSeek-V3, arXiv:2412.19437, section 3.2.1, in the V form of the `DualPipe` repository. It
//! runs a forward pass of one way and a backward pass of the other as one pair, so that each hides
//! the other's messages to the experts. The cells are DeepSeek's and PyTorch's, one by one, but
//! plans run a pair as its forward and then its backward pass: nothing is overlapped within a
//! stage yet. Needs `m >= 2p`; a stage holds at most `2p + 1` chunks.

use crate::{
    bare::Step,
    schedule::{Pipeline, writer::Writer},
};

/// The steps of one stage; the numbers are the steps of the original.
pub(super) fn steps(pipeline: Pipeline, stage: usize) -> Vec<Step> {
    let Pipeline { stages: p, microbatches: m, .. } = pipeline;
    let (behind, through) = (p - stage - 1, stage + 1);
    let mut writer = Writer::new(pipeline, stage);
    // 1, 2: fill both ways.
    (0..2 * behind).for_each(|_| writer.forward(0));
    for _ in 0..through {
        writer.forward(0);
        writer.forward(1);
    }
    // 3: the way back begins its backward passes.
    for _ in 0..behind {
        writer.input(1);
        writer.weight();
        writer.forward(1);
    }
    // 4, 5: pairs of both ways, then of one.
    for pair in 0..(m + through).saturating_sub(2 * p) {
        if pair == 0 && behind == 0 {
            // The last stage has nothing to overlap yet, and would only make the others wait.
            writer.forward(0);
            writer.backward(1);
        } else {
            writer.pair(0);
        }
        writer.pair(1);
    }
    for _ in 0..behind {
        writer.backward(1);
        writer.pair(1);
    }
    drain(&mut writer, behind, through, stage);
    writer.steps
}

/// Steps 6 to 8: the last backward passes, from half of them on with weight gradients put off.
fn drain(writer: &mut Writer, behind: usize, through: usize, stage: usize) {
    for step in 0..2 * through {
        let turn = 1 - step % 2;
        // Odd stages change on the way back, even ones on the way there.
        let late = step >= 2 * (through / 2) + usize::from(stage.is_multiple_of(2));
        match late {
            true => writer.input(turn),
            false => writer.backward(turn),
        }
    }
    for _ in 0..behind {
        writer.weight();
        writer.input(0);
    }
    (0..through).for_each(|_| writer.weight());
}
