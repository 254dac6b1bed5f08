//! ZB-V: two chunks a stage, laid out as a V, and no bubble at the memory of 1F1B.
//!
//! Qi et al., "Zero Bubble Pipeline Parallelism", arXiv:2401.10241, section 6, in the fixed form
//! for equal times that PyTorch has as `ScheduleZBVZeroBubble`. No idle time within the span of a
//! stage where `F`, `I` and `W` take equal times and `m >= 2p - 1`; fewer microbatches run the
//! order of `2p - 1` with the others left out. A stage holds at most `2p` chunks.

use crate::{
    action::Action,
    bare::Step,
    schedule::{Pipeline, writer::Writer},
};

/// The actions of one stage.
pub(super) fn order(pipeline: Pipeline, stage: usize) -> Vec<Action> {
    let Pipeline { stages: p, microbatches, .. } = pipeline;
    let mut writer = Writer::new(pipeline, stage);
    warm_up(&mut writer, p, stage);
    let full = microbatches.max(2 * p - 1);
    while writer.forwards(1) < writer.forwards(0) || writer.forwards(0) < full {
        if writer.forwards(0) < full {
            writer.forward(0);
        }
        writer.input(0);
        writer.weight_of(0);
        writer.forward(1);
        writer.input(1);
        writer.weight_of(1);
    }
    cool_down(&mut writer, p, stage);
    let all = writer.steps.iter().flat_map(Step::actions);
    all.filter(|action| action.microbatch < microbatches).collect()
}

fn warm_up(writer: &mut Writer, stages: usize, stage: usize) {
    (0..2 * (stages - stage) - 1).for_each(|_| writer.forward(0));
    for _ in 0..stage {
        writer.forward(1);
        writer.forward(0);
    }
    for _ in stage..stages {
        writer.forward(1);
        writer.input(1);
        writer.weight_of(1);
    }
}

fn cool_down(writer: &mut Writer, stages: usize, stage: usize) {
    for _ in 0..stage {
        writer.input(0);
        writer.input(1);
    }
    for _ in stage..stages {
        writer.input(0);
        writer.weight_of(0);
    }
    (0..stage).for_each(|_| writer.weight_of(1));
    (0..stage).for_each(|_| writer.weight_of(0));
}
