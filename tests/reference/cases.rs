//! The small models that Troupe and PyTorch both train, drawn from seeds.
//!
//! What a case switches on is written down; its widths are drawn. Every case reaches something
//! that the others do not: low-rank queries, YaRN, groups of experts, dense layers, shared experts,
//! clipping, another mesh and schedule.

use graphs::{
    Decoder, PlanSpec,
    mesh::Mesh,
    schedule::{Interleaved, Schedule},
    spec::WeightGrad,
};
use jobs::job::Model;
use ops::{
    Yarn,
    optim::{AdamW, MuonClip},
};
use serde::Serialize;

/// One model, and how it is trained.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Name of its folder and golden file.
    pub name: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Key of everything random in it.
    pub seed: u64,
    /// The model.
    pub decoder: Decoder,
    /// How Troupe spreads it.
    pub plan: PlanSpec,
    /// Sequences of a step.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub context: usize,
    /// Steps of training; without any, only logits and loss are compared.
    pub steps: usize,
    /// Update rules.
    pub optimizer: MuonClip,
    /// Norm to which gradients of AdamW parameters are clipped.
    pub clip: Option<f64>,
    /// Learning rate.
    pub rate: Steps,
}

/// A warm-up, stable, decay schedule counted in steps; the decay is half a cosine wave.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Steps {
    /// Rate between warm-up and decay.
    pub peak: f64,
    /// Step at which the warm-up ends.
    pub warmup_steps: usize,
    /// Step at which the decay begins.
    pub decay_begin: usize,
    /// Steps it takes.
    pub decay_steps: usize,
    /// Rate at its end.
    pub to: f64,
}

const RATE: Steps = Steps { peak: 1e-2, warmup_steps: 3, decay_begin: 6, decay_steps: 4, to: 1e-3 };

/// What every drawn case starts from.
fn drawn(name: &'static str, title: &'static str, seed: u64) -> Case {
    Case {
        name,
        title,
        seed,
        decoder: widths(&mut Draws(seed)),
        plan: PlanSpec { mesh: Mesh { pp: 2, ep: 2, ..Mesh::default() }, ..PlanSpec::default() },
        sequences: 8,
        context: 24,
        steps: 10,
        // AdamW divides a gradient by its own size, and so enlarges the rounding of those that are
        // nearly zero as far as `eps` lets it.
        optimizer: MuonClip {
            qk_clip: Some(0.8),
            rest: AdamW { eps: 1e-5, ..AdamW::default() },
            ..MuonClip::default()
        },
        clip: None,
        rate: RATE,
    }
}

/// A small model with plain queries, no YaRN, no groups.
fn widths(draws: &mut Draws) -> Decoder {
    Decoder {
        layers: draws.pick(&[3, 4]),
        dense_layers: 1,
        hidden: draws.pick(&[32, 48, 64]),
        dense_width: draws.pick(&[64, 80, 96]),
        vocab: draws.pick(&[272, 288, 320]),
        heads: draws.pick(&[2, 3, 4]),
        q_rank: None,
        kv_rank: draws.pick(&[16, 24]),
        nope: draws.pick(&[8, 12, 16]),
        rope: draws.pick(&[4, 8]),
        value: draws.pick(&[8, 12]),
        experts: draws.pick(&[4, 8]),
        experts_per_token: draws.pick(&[2, 3]),
        shared_experts: 1,
        expert_width: draws.pick(&[16, 20, 24]),
        groups: 1,
        groups_per_token: 1,
        scaling: draws.pick(&[1.5, 2.0, 2.5]),
        rope_theta: draws.pick(&[1e4, 5e4]),
        yarn: None,
        norm_eps: draws.pick(&[1e-6, 1e-5]),
        init_std: 0.12,
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    vec![plain(), low_rank(), grouped(), stretched(), nano()]
}

fn plain() -> Case {
    drawn("plain", "full queries, 1F1B, pp 2, ep 2", 102)
}

fn low_rank() -> Case {
    let title =
        "low-rank queries, Kimi K2's YaRN, 2 shared experts, interleaved, pp 2, vpp 2, ep 2";
    let mut case = drawn("low-rank", title, 200);
    case.decoder.q_rank = Some(20);
    case.decoder.rope = 16;
    case.decoder.shared_experts = 2;
    case.decoder.rope_theta = 5e4;
    case.decoder.yarn = Some(Yarn {
        factor: 32.0,
        original: 16,
        beta_fast: 1.0,
        beta_slow: 1.0,
        mscale: 1.0,
        mscale_all_dim: 1.0,
    });
    case.plan.mesh.vpp = 2;
    let rule = Interleaved { extra_warmup: 1, split_backward: true, ..Interleaved::default() };
    case.plan.schedule = Some(Schedule::Interleaved1F1B(rule));
    case
}

fn grouped() -> Case {
    let title =
        "low-rank queries, 2 of 4 groups, 2 dense layers, clipping, GPipe, late W, pp 2, ep 2";
    let mut case = drawn("grouped", title, 304);
    case.decoder.q_rank = Some(16);
    case.decoder.layers = 4;
    case.decoder.dense_layers = 2;
    case.decoder.experts = 8;
    case.decoder.groups = 4;
    case.decoder.groups_per_token = 2;
    case.clip = Some(0.25);
    case.plan.schedule = Some(Schedule::GPipe);
    case.plan.weight_grad = Some(WeightGrad::Late(2));
    case
}

fn stretched() -> Case {
    let title = "full queries, YaRN that moves cosines, 1 of 2 groups, plain momentum, ep 2, dp 2";
    let mut case = drawn("stretched", title, 405);
    case.decoder.rope = 16;
    case.decoder.shared_experts = 2;
    case.decoder.experts = 8;
    case.decoder.groups = 2;
    case.decoder.yarn = Some(Yarn {
        factor: 4.0,
        original: 16,
        beta_fast: 8.0,
        beta_slow: 0.5,
        mscale: 1.0,
        mscale_all_dim: 0.7,
    });
    case.optimizer.nesterov = false;
    case.plan.mesh = Mesh { ep: 2, dp: 2, ..Mesh::default() };
    case
}

/// The model of the job `k2-nano`, whose logits alone are compared.
fn nano() -> Case {
    let mut case = drawn("k2-nano", "the model of the job k2-nano, logits alone", 505);
    let Ok(Model::Decoder(decoder)) = jobs::load_model("k2-nano") else {
        unreachable!("the library holds k2-nano, a decoder")
    };
    case.decoder = decoder;
    case.sequences = 2;
    case.context = 128;
    case.steps = 0;
    case
}

/// Random numbers of a seed, one after the other; Steele et al., "SplitMix", OOPSLA 2014.
#[derive(Clone, Debug)]
pub struct Draws(pub u64);

impl Draws {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// A number from -1 to 1.
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
