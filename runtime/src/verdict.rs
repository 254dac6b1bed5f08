//! What all ranks together found out about a step, sent to every actor before it updates.

/// Figures that an update needs and no rank can know alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Learning rate of this step.
    pub lr: f32,
    /// Factor for the gradients of AdamW parameters, below one when the norm was clipped.
    pub scale: f32,
    /// Largest softmax input per head over the whole batch, by index among the model's clips.
    pub max_logits: Vec<Vec<f32>>,
    /// Tokens per expert over the whole batch, by router node; empty for other nodes.
    pub loads: Vec<Vec<u64>>,
}
