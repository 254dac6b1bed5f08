//! Optimizers: MuonClip as in the K2 report, and AdamW for comparison.
//!
//! Kimi K2, arXiv:2507.20534, section 2.1, algorithm 1; Moonlight, arXiv:2502.16982, section 2.
//! Weights are updated in their F32 master copies. Muon works on whole matrices, each expert's
//! by itself; whoever shards optimizer state by rows does its parts one by one (`muon`).

mod balance;
mod muon;
mod qk_clip;
mod state;

use kernels::adamw;
use serde::{Deserialize, Serialize};

pub use self::{
    balance::balance,
    qk_clip::{Gamma, Rows, qk_clip},
    state::{State, StateError},
};
use crate::{DType, Floats, Place, Rule, on_gpu::optim as on_gpu};

/// How weights move, as a job file spells it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Optimizer {
    /// Muon for hidden matrices, AdamW for the rest, and QK-Clip.
    MuonClip(MuonClip),
    /// AdamW for everything.
    AdamW(PlainAdamW),
}

/// Parameters of MuonClip. The K2 report discloses few of them; each default names its source.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MuonClip {
    /// Decay of the momentum. Default 0.95, inherited from Moonlight.
    pub momentum: f32,
    /// Decay of all weights, multiplied by the learning rate only. Default 0.1, the K2 report's.
    pub weight_decay: f32,
    /// Root mean square that an update of a full-rank matrix is brought to. Default 0.2, the
    /// K2 report's.
    pub update_rms: f32,
    /// Largest softmax input that a head may have before its projections shrink; `None` never
    /// clips. Default 100, the K2 report's.
    pub qk_clip: Option<f32>,
    /// Whether the update looks ahead, `g + momentum * m`. Default true, inherited from Moonlight;
    /// algorithm 1 of the K2 report writes the plain momentum.
    pub nesterov: bool,
    /// Newton-Schulz steps. Default 5, inherited from Moonlight.
    pub steps: usize,
    /// Step of the router's bias. Default 0.001, inherited from DeepSeek-V3.
    pub balance_rate: f32,
    /// Embedding, head and gains.
    pub rest: AdamW,
}

/// Parameters of AdamW beside MuonClip, which shares its learning rate and decay with it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Decay of the first and second moment. Default (0.9, 0.95), inherited from Moonlight.
    pub betas: (f32, f32),
    /// Added to the root of the second moment. Default 1e-8, inherited from Moonlight.
    pub eps: f32,
}

/// Parameters of AdamW when it updates everything.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlainAdamW {
    /// Decay of the first and second moment. Default (0.9, 0.95), ours, as in MuonClip.
    pub betas: (f32, f32),
    /// Added to the root of the second moment. Default 1e-8, ours, as in MuonClip.
    pub eps: f32,
    /// Decay of all weights, multiplied by the learning rate. Default 0.1, ours, as in MuonClip.
    pub weight_decay: f32,
    /// Step of the router's bias. Default 0.001, inherited from DeepSeek-V3.
    pub balance_rate: f32,
}

/// A parameter, or rows of it, on its way.
#[derive(Debug)]
pub struct Moving<'a> {
    /// Its gradient.
    pub grad: &'a Floats,
    /// Its master.
    pub master: &'a mut Floats,
    /// What the optimizer remembers of it.
    pub state: &'a mut State,
}

/// What a step of AdamW moves.
struct Adam<'a> {
    /// The step's number, from 1 on.
    step: f32,
    grad: &'a Floats,
    /// Moments, then master.
    moved: [&'a mut Floats; 3],
}

impl Default for MuonClip {
    fn default() -> Self {
        MuonClip {
            momentum: 0.95,
            weight_decay: 0.1,
            update_rms: 0.2,
            qk_clip: Some(100.0),
            nesterov: true,
            steps: 5,
            balance_rate: 1e-3,
            rest: AdamW::default(),
        }
    }
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { betas: (0.9, 0.95), eps: 1e-8 }
    }
}

impl Default for PlainAdamW {
    fn default() -> Self {
        let AdamW { betas, eps } = AdamW::default();
        PlainAdamW { betas, eps, weight_decay: 0.1, balance_rate: 1e-3 }
    }
}

impl Optimizer {
    /// Largest softmax input that a head may have, if there is a bound.
    pub fn qk_clip(&self) -> Option<f32> {
        match self {
            Optimizer::MuonClip(muon) => muon.qk_clip,
            Optimizer::AdamW(_) => None,
        }
    }

    /// Step of the router's bias, for [`balance`].
    pub fn balance_rate(&self) -> f32 {
        match self {
            Optimizer::MuonClip(muon) => muon.balance_rate,
            Optimizer::AdamW(adam) => adam.balance_rate,
        }
    }

    /// What moves a parameter with Newton-Schulz on the whole of it: Muon, if it is a matrix of
    /// [`Rule::Muon`] and this is [`MuonClip`].
    pub fn muon(&self, rule: Rule, shape: &[usize]) -> Option<&MuonClip> {
        match self {
            Optimizer::MuonClip(muon) if rule == Rule::Muon && shape.len() == 2 => Some(muon),
            _ => None,
        }
    }

    /// Number of f32 values in the state of a parameter, or of rows of it, which
    /// [`state`](Self::state) makes.
    pub fn state_elements(&self, rule: Rule, shape: &[usize]) -> usize {
        let elements = shape.iter().product::<usize>();
        match (rule, self.muon(rule, shape)) {
            (Rule::Balance, _) => 0,
            (_, Some(_)) => elements,
            (_, None) => 2 * elements + 1,
        }
    }

    /// The state of a parameter before its first update, or of rows of it.
    pub fn state(&self, rule: Rule, shape: &[usize]) -> State {
        let elements = shape.iter().product();
        match (rule, self.muon(rule, shape)) {
            (Rule::Balance, _) => State::None,
            (_, Some(_)) => State::muon(elements),
            (_, None) => State::adamw(elements),
        }
    }

    /// Updates a parameter's master copy; `state` is from [`state`](Self::state).
    ///
    /// Muon moves matrices with [`Rule::Muon`], AdamW everything else except biases with
    /// [`Rule::Balance`], which [`balance`] moves. Muon expects whole matrices and gradients that
    /// are not clipped; AdamW goes element by element, so rows move as they do in the whole.
    /// The products of Newton-Schulz are taken in the format of the activations, `dtype`, as in
    /// Muon's own code; all else is in F32.
    pub fn update(
        &self,
        rule: Rule,
        shape: &[usize],
        dtype: DType,
        lr: f32,
        grad: &Floats,
        master: &mut Floats,
        state: &mut State,
    ) {
        debug_assert_eq!(self.state(rule, shape).layout(), state.layout());
        match (self, state) {
            (Optimizer::MuonClip(muon), State::Muon { momentum }) => {
                let direction = muon.directions(vec![(grad, momentum)]).remove(0);
                let orthogonal = muon.orthogonal(shape, dtype, &[&direction]).remove(0);
                muon.turn(shape, lr, vec![(&orthogonal, master)]);
            }
            (_, state) => self.step_adamw(lr, 1.0, vec![Moving { grad, master, state }]),
        }
    }

    /// One step of AdamW of several parameters, or rows of them, with their gradients times
    /// `scale`.
    ///
    /// What has another state stays as it is. On a GPU they go together, in whatever company with
    /// the same bits.
    ///
    /// # Panics
    ///
    /// If not all is in one place, the lengths of one's parts differ, or, on a GPU, those of
    /// several.
    pub fn step_adamw(&self, lr: f32, scale: f32, all: Vec<Moving<'_>>) {
        let mut left: Vec<Adam<'_>> = Vec::new();
        for Moving { grad, master, state } in all {
            if let State::AdamW { first, second, step } = state {
                step[0] += 1.0;
                left.push(Adam { step: step[0], grad, moved: [first, second, master] });
            }
        }
        while let Some(Adam { step, .. }) = left.first() {
            let how = adamw::Update { scale, ..self.adamw(lr, *step) };
            let others = left.iter().position(|it| it.step != *step).unwrap_or(left.len());
            let rest = left.split_off(others);
            step_alike(&how, std::mem::replace(&mut left, rest));
        }
    }

    fn adamw(&self, lr: f32, step: f32) -> adamw::Update {
        let (betas, eps, weight_decay) = match self {
            Optimizer::MuonClip(muon) => (muon.rest.betas, muon.rest.eps, muon.weight_decay),
            Optimizer::AdamW(adam) => (adam.betas, adam.eps, adam.weight_decay),
        };
        adamw::Update { lr, betas, eps, weight_decay, step: step as u32, scale: 1.0 }
    }
}

/// A step of the same number, where the weights are.
fn step_alike(how: &adamw::Update, all: Vec<Adam<'_>>) {
    match all.first().map_or(Place::Host, |first| first.grad.place()) {
        Place::Host => all.into_iter().for_each(|Adam { grad, moved, .. }| {
            let [first, second, master] = moved.map(Floats::host_mut);
            adamw::update(how, grad.host(), first, second, master);
        }),
        Place::Gpu(gpu) => {
            let all = all.into_iter();
            let on_gpu = all.map(|it| (it.grad.on_gpu(), it.moved.map(Floats::on_gpu_mut)));
            on_gpu::adamw(&gpu, how, on_gpu.collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use kernels::random::normal;

    use super::*;

    fn muon() -> Optimizer {
        Optimizer::MuonClip(MuonClip { weight_decay: 0.0, ..MuonClip::default() })
    }

    fn random(n: usize) -> Floats {
        (0..n as u64).map(|i| normal(1, i)).collect::<Vec<f32>>().into()
    }

    fn zeros(n: usize) -> Floats {
        vec![0.0; n].into()
    }

    #[test]
    fn a_muon_update_has_the_root_mean_square_of_an_adamw_update() {
        for shape in [[64, 64], [64, 256], [256, 64]] {
            let grad = random(shape[0] * shape[1]);
            let mut state = muon().state(Rule::Muon, &shape);
            let mut w = zeros(grad.len());
            muon().update(Rule::Muon, &shape, DType::F32, 1.0, &grad, &mut w, &mut state);
            let (w, grad) = (w.host(), grad.host());
            let rms = (w.iter().map(|x| x * x).sum::<f32>() / w.len() as f32).sqrt();
            assert!((0.15..0.23).contains(&rms), "{shape:?}: {rms}");
            assert!(w.iter().zip(grad).map(|(w, g)| w * g).sum::<f32>() < 0.0, "descends");
        }
    }

    #[test]
    fn a_zero_gradient_scales_every_weight_by_one_minus_rate_times_decay() {
        let plain = Optimizer::AdamW(PlainAdamW::default());
        for optimizer in [Optimizer::MuonClip(MuonClip::default()), plain] {
            for (rule, shape) in [(Rule::Muon, vec![3, 4]), (Rule::AdamW, vec![12])] {
                let mut w = random(12);
                let expected: Vec<f32> = w.host().iter().map(|w| w * (1.0 - 0.3 * 0.1)).collect();
                let mut state = optimizer.state(rule, &shape);
                optimizer.update(rule, &shape, DType::F32, 0.3, &zeros(12), &mut w, &mut state);
                assert_eq!(w.host(), expected);
            }
        }
    }

    #[test]
    fn muon_takes_matrices_adamw_the_rest_and_nothing_the_bias() {
        let names = |rule, shape: &[usize]| -> Vec<&str> {
            muon().state(rule, shape).buffers().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(Rule::Muon, &[2, 2]), ["momentum"]);
        assert_eq!(names(Rule::AdamW, &[2, 2]), ["first_moment", "second_moment", "step"]);
        assert_eq!(names(Rule::Muon, &[4]), ["first_moment", "second_moment", "step"]);
        assert!(names(Rule::Balance, &[4]).is_empty());
        for optimizer in [muon(), Optimizer::AdamW(PlainAdamW::default())] {
            for rule in [Rule::Muon, Rule::AdamW, Rule::Balance] {
                for shape in [&[2, 3][..], &[4]] {
                    let state = optimizer.state(rule, shape);
                    let size: usize = state.buffers().iter().map(|(_, b)| b.len()).sum();
                    assert_eq!(optimizer.state_elements(rule, shape), size, "{rule:?} {shape:?}");
                }
            }
        }
    }

    #[test]
    fn nesterov_adds_the_gradient_to_the_momentum_once_more() {
        let plain = Optimizer::MuonClip(MuonClip {
            nesterov: false,
            weight_decay: 0.0,
            ..MuonClip::default()
        });
        let (first, second) = (random(16), Floats::from([vec![1.0], vec![0.0; 15]].concat()));
        let run = |optimizer: &Optimizer| {
            let mut state = optimizer.state(Rule::Muon, &[4, 4]);
            let mut w = zeros(16);
            optimizer.update(Rule::Muon, &[4, 4], DType::F32, 1.0, &first, &mut w, &mut state);
            let after_first = w.clone();
            optimizer.update(Rule::Muon, &[4, 4], DType::F32, 1.0, &second, &mut w, &mut state);
            (after_first, w)
        };
        let (ahead, behind) = (run(&muon()), run(&plain));
        let close = |a: &Floats, b: &Floats| {
            a.host().iter().zip(b.host()).all(|(a, b)| (a - b).abs() < 1e-3)
        };
        assert!(close(&ahead.0, &behind.0), "scaling a first gradient changes nothing");
        assert!(!close(&ahead.1, &behind.1));
    }

    #[test]
    fn adamw_takes_its_decay_and_its_step_count_along() {
        let optimizer = Optimizer::AdamW(PlainAdamW { weight_decay: 0.0, ..PlainAdamW::default() });
        let mut state = optimizer.state(Rule::AdamW, &[1]);
        let mut w = zeros(1);
        for step in 1..=10 {
            optimizer.update(
                Rule::AdamW,
                &[1],
                DType::F32,
                0.1,
                &vec![2.0].into(),
                &mut w,
                &mut state,
            );
            assert!(
                (w.host()[0] + 0.1 * step as f32).abs() < 1e-5,
                "a constant gradient, step {step}"
            );
        }
    }
}
