//! The rule that turns gradients into weights.

use serde::Deserialize;

/// The rule that turns gradients into weights.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Optimizer {
    /// Muon for matrices, AdamW for the rest, and a cap on attention logits.
    MuonClip(MuonClip),
    /// AdamW for everything.
    AdamW(AdamW),
}

/// Muon with QK-Clip; Kimi K2, arXiv:2507.20534, section 2.1.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct MuonClip {
    /// Share of the past in the momentum.
    pub momentum: f32,
    /// Decay of the weights.
    pub weight_decay: f32,
    /// Root mean square of an update before the learning rate.
    pub update_rms: f32,
    /// Largest attention logit.
    pub qk_clip: Option<f32>,
    /// Rule of embeddings, norms and head.
    pub rest: AdamW,
}

impl Default for MuonClip {
    fn default() -> Self {
        let rest = AdamW::default();
        MuonClip { momentum: 0.95, weight_decay: 0.1, update_rms: 0.2, qk_clip: None, rest }
    }
}

/// Adam with decoupled decay; Loshchilov and Hutter, arXiv:1711.05101.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Shares of the past in the two moments.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { betas: (0.9, 0.95), eps: 1e-8 }
    }
}
