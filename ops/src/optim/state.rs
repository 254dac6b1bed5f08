//! What an optimizer remembers about a parameter between steps.

use std::ops::Range;

use super::Optimizer;
use crate::Rule;

/// The state of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Of a parameter that no gradient moves.
    None,
    /// Of a matrix that Muon moves.
    Muon {
        /// Decaying sum of the gradients.
        momentum: Vec<f32>,
    },
    /// Of a parameter that AdamW moves.
    AdamW {
        /// Decaying mean of the gradients.
        first: Vec<f32>,
        /// Decaying mean of their squares.
        second: Vec<f32>,
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
        State::Muon { momentum: vec![0.0; elements] }
    }

    pub(super) fn adamw(elements: usize) -> Self {
        State::AdamW { first: vec![0.0; elements], second: vec![0.0; elements], step: [0.0] }
    }

    /// The buffers by name, as checkpoints store them.
    pub fn buffers(&self) -> Vec<(&'static str, &[f32])> {
        match self {
            State::None => Vec::new(),
            State::Muon { momentum } => vec![("momentum", momentum)],
            State::AdamW { first, second, step } => {
                vec![("first_moment", first), ("second_moment", second), ("step", step)]
            }
        }
    }

    /// The state of some elements of the parameter; what counts updates goes along whole.
    pub fn slice(&self, elements: Range<usize>) -> State {
        match self {
            State::None => State::None,
            State::Muon { momentum } => State::Muon { momentum: momentum[elements].to_vec() },
            State::AdamW { first, second, step } => State::AdamW {
                first: first[elements.clone()].to_vec(),
                second: second[elements].to_vec(),
                step: *step,
            },
        }
    }

    /// Adds the state of the elements that follow, which has seen as many updates.
    pub fn append(&mut self, next: State) {
        match (self, next) {
            (State::Muon { momentum }, State::Muon { momentum: next }) => momentum.extend(next),
            (State::AdamW { first, second, .. }, State::AdamW { first: f, second: s, .. }) => {
                first.extend(f);
                second.extend(s);
            }
            (_, next) => debug_assert_eq!(next, State::None, "slices of one state are alike"),
        }
    }

    fn buffers_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        match self {
            State::None => Vec::new(),
            State::Muon { momentum } => vec![("momentum", momentum)],
            State::AdamW { first, second, step } => {
                vec![("first_moment", first), ("second_moment", second), ("step", step)]
            }
        }
    }

    /// Names and lengths of the buffers.
    pub(super) fn layout(&self) -> Vec<(&'static str, usize)> {
        self.buffers().into_iter().map(|(name, values)| (name, values.len())).collect()
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
        for ((_, to), (_, from)) in state.buffers_mut().into_iter().zip(found) {
            to.copy_from_slice(from);
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
            let (mut w, mut state) = (vec![1.0; 6], optimizer.state(rule, &[2, 3]));
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
            let (mut w, mut state) = (vec![1.0; 12], muon.state(rule, &shape));
            let grad: Vec<f32> = (0..12).map(|i| kernels::random::normal(1, i)).collect();
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
