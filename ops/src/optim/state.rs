//! What an optimizer remembers about a parameter between steps.

use std::ops::Range;

use super::Optimizer;
use crate::{Floats, Place, Rule};

/// The state of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Of a parameter that no gradient moves.
    None,
    /// Of a matrix that Muon moves.
    Muon {
        /// Decaying sum of the gradients.
        momentum: Floats,
    },
    /// Of a parameter that AdamW moves.
    AdamW {
        /// Decaying mean of the gradients.
        first: Floats,
        /// Decaying mean of their squares.
        second: Floats,
        /// Number of updates; a float like its neighbours, exact up to sixteen million.
        step: [f32; 1],
    },
}

/// Buffers that are not the state of the parameter they were read for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("optimizer state has {got}, expected {expected}")]
pub struct StateError {
    /// Names and lengths that the job's optimizer keeps.
    pub expected: String,
    /// Names and lengths that were found.
    pub got: String,
}

impl State {
    pub(super) fn muon(elements: usize) -> Self {
        State::Muon { momentum: vec![0.0; elements].into() }
    }

    pub(super) fn adamw(elements: usize) -> Self {
        let zeros = || vec![0.0; elements].into();
        State::AdamW { first: zeros(), second: zeros(), step: [0.0] }
    }

    /// The buffers by name, as checkpoints store them.
    ///
    /// # Panics
    ///
    /// If they are on a GPU.
    pub fn buffers(&self) -> Vec<(&'static str, &[f32])> {
        match self {
            State::None => Vec::new(),
            State::Muon { momentum } => vec![("momentum", momentum.host())],
            State::AdamW { first, second, step } => vec![
                ("first_moment", first.host()),
                ("second_moment", second.host()),
                ("step", step),
            ],
        }
    }

    /// How many numbers it has.
    pub fn elements(&self) -> usize {
        self.layout().into_iter().map(|(_, len)| len).sum()
    }

    /// A copy in a place.
    pub fn at(&self, place: &Place) -> State {
        let at = |values: &Floats| Floats::at(place, values.to_host());
        match self {
            State::None => State::None,
            State::Muon { momentum } => State::Muon { momentum: at(momentum) },
            State::AdamW { first, second, step } => {
                State::AdamW { first: at(first), second: at(second), step: *step }
            }
        }
    }

    /// The state of some elements of the parameter; what counts updates goes along whole.
    pub fn slice(&self, elements: Range<usize>) -> State {
        match self {
            State::None => State::None,
            State::Muon { momentum } => State::Muon { momentum: momentum.part(elements) },
            State::AdamW { first, second, step } => State::AdamW {
                first: first.part(elements.clone()),
                second: second.part(elements),
                step: *step,
            },
        }
    }

    /// Adds the state of the elements that follow, which has seen as many updates.
    pub fn append(&mut self, next: State) {
        match (self, next) {
            (State::Muon { momentum }, State::Muon { momentum: next }) => {
                *momentum = Floats::joined([std::mem::take(momentum), next]);
            }
            (State::AdamW { first, second, .. }, State::AdamW { first: f, second: s, .. }) => {
                *first = Floats::joined([std::mem::take(first), f]);
                *second = Floats::joined([std::mem::take(second), s]);
            }
            (_, next) => debug_assert_eq!(next, State::None, "slices of one state are alike"),
        }
    }

    /// Names and lengths of the buffers.
    pub(super) fn layout(&self) -> Vec<(&'static str, usize)> {
        match self {
            State::None => Vec::new(),
            State::Muon { momentum } => vec![("momentum", momentum.len())],
            State::AdamW { first, second, step } => vec![
                ("first_moment", first.len()),
                ("second_moment", second.len()),
                ("step", step.len()),
            ],
        }
    }
}

impl Optimizer {
    /// Brings back the state of a parameter from the buffers of a checkpoint, in any order.
    ///
    /// # Errors
    ///
    /// [`StateError`] if a buffer is missing, too many or of another length, as after a change of
    /// the optimizer.
    pub fn restore(
        &self,
        rule: Rule,
        shape: &[usize],
        buffers: &[(&str, &[f32])],
    ) -> Result<State, StateError> {
        let mut state = self.state(rule, shape);
        let mut found = buffers.to_vec();
        found.sort_unstable_by_key(|(name, _)| *name);
        let got: Vec<(&str, usize)> = found.iter().map(|(name, x)| (*name, x.len())).collect();
        if got != state.layout() {
            return Err(StateError { expected: listed(&state.layout()), got: listed(&got) });
        }
        let values = |name: &str| {
            let found = found.iter().find(|(which, _)| *which == name);
            found.map(|(_, values)| values.to_vec()).unwrap_or_default().into()
        };
        match &mut state {
            State::None => {}
            State::Muon { momentum } => *momentum = values("momentum"),
            State::AdamW { first, second, step } => {
                (*first, *second) = (values("first_moment"), values("second_moment"));
                step.copy_from_slice(values("step").host());
            }
        }
        Ok(state)
    }
}

fn listed(buffers: &[(&str, usize)]) -> String {
    let parts: Vec<String> = buffers.iter().map(|(name, n)| format!("`{name}` [{n}]")).collect();
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::optim::{MuonClip, PlainAdamW};

    #[test]
    fn a_restored_state_goes_on_as_if_nothing_had_happened() {
        let muon = Optimizer::MuonClip(MuonClip::default());
        for (optimizer, rule) in [
            (&muon, Rule::Muon),
            (&muon, Rule::AdamW),
            (&Optimizer::AdamW(PlainAdamW::default()), Rule::Muon),
        ] {
            let grad: Vec<f32> = (0..6).map(|i| kernels::random::normal(1, i)).collect();
            let grad = Floats::from(grad);
            let (mut w, mut state) = (Floats::from(vec![1.0; 6]), optimizer.state(rule, &[2, 3]));
            optimizer.update(rule, &[2, 3], DType::F32, 0.1, &grad, &mut w, &mut state);
            let mut buffers = state.buffers();
            buffers.reverse();
            let mut restored = optimizer.restore(rule, &[2, 3], &buffers).unwrap();
            assert_eq!(restored, state);
            let mut again = w.clone();
            optimizer.update(rule, &[2, 3], DType::F32, 0.1, &grad, &mut w, &mut state);
            optimizer.update(rule, &[2, 3], DType::F32, 0.1, &grad, &mut again, &mut restored);
            assert_eq!(w, again);
        }
    }

    #[test]
    fn slices_of_a_state_join_to_the_whole_wherever_it_is_cut() {
        for (rule, shape) in [(Rule::Muon, [4, 3]), (Rule::AdamW, [12, 1])] {
            let muon = Optimizer::MuonClip(MuonClip::default());
            let (mut w, mut state) = (Floats::from(vec![1.0; 12]), muon.state(rule, &shape));
            let grad: Vec<f32> = (0..12).map(|i| kernels::random::normal(1, i)).collect();
            let grad = Floats::from(grad);
            muon.update(rule, &shape, DType::F32, 0.1, &grad, &mut w, &mut state);
            for cut in 0..=12 {
                let mut joined = state.slice(0..cut);
                joined.append(state.slice(cut..12));
                assert_eq!(joined, state);
            }
        }
        let mut none = State::None.slice(0..0);
        none.append(State::None);
        assert_eq!(none, State::None);
    }

    #[test]
    fn a_state_of_another_optimizer_is_refused_in_words() {
        let muon = Optimizer::MuonClip(MuonClip::default());
        let state = muon.state(Rule::AdamW, &[2, 3]);
        let error = muon.restore(Rule::Muon, &[2, 3], &state.buffers()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "optimizer state has `first_moment` [6], `second_moment` [6], `step` [1], \
             expected `momentum` [6]"
        );
    }
}
