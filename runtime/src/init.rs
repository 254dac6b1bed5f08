//! Values of parameters and optimizer states before the first step of this process.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use graphs::model::ModelGraph;
use ops::{
    DType, Floats, Place, Tensor,
    optim::{Optimizer, State, StateError},
};

use crate::error::RunError;

/// What an actor keeps of the rows of a parameter that it updates.
#[derive(Debug)]
pub struct Owned {
    /// The rows.
    pub rows: Range<usize>,
    /// Values in f32, what updates act on.
    pub master: Floats,
    /// Momentum or moments.
    pub state: State,
    /// Whether the master and the state live on the host, and cross its bus for each update.
    pub on_host: bool,
    /// Gradient of the last step, kept only by a cluster that audits.
    pub gradient: Option<Floats>,
}

impl Owned {
    /// Moves the master and the state to a place.
    pub fn bring(&mut self, to: &Place) {
        if !to.is(&self.master.place()) {
            self.master = Floats::at(to, self.master.to_host());
            self.state = self.state.at(to);
        }
    }

    /// Bytes of the master, and of the states.
    pub fn bytes(&self) -> (u64, u64) {
        let states = self.state.elements() * DType::F32.size();
        (self.master.bytes(), states as u64)
    }
}

/// Where initial values come from: tensors by name, random numbers for the rest.
///
/// Random numbers are counter-based and keyed by seed, tensor name and position, so an actor can
/// make any tensor by itself and every plan starts from the same bits.
#[derive(Debug)]
pub struct Initial<'a> {
    graph: &'a ModelGraph,
    optimizer: &'a Optimizer,
    seed: u64,
    tensors: &'a BTreeMap<String, Tensor>,
}

impl<'a> Initial<'a> {
    /// Takes `tensors` where they name a parameter or state, and fresh values elsewhere.
    ///
    /// # Errors
    ///
    /// [`RunError::Weights`] naming each tensor that does not have the shape the model wants.
    pub fn new(
        graph: &'a ModelGraph,
        optimizer: &'a Optimizer,
        seed: u64,
        tensors: &'a BTreeMap<String, Tensor>,
    ) -> Result<Self, RunError> {
        let mut wrong = Vec::new();
        for parameter in graph.parameters() {
            match tensors.get(&parameter.name) {
                Some(tensor) if tensor.shape() != parameter.spec.shape => wrong.push(format!(
                    "`{}` has shape {:?}, the model wants {:?}",
                    parameter.name,
                    tensor.shape(),
                    parameter.spec.shape
                )),
                None if !tensors.is_empty() => {
                    wrong.push(format!("`{}` is missing", parameter.name));
                }
                _ => {}
            }
        }
        let initial = Initial { graph, optimizer, seed, tensors };
        for (index, parameter) in graph.parameters().iter().enumerate() {
            if let Err(error) = initial.state(index) {
                wrong.push(format!("`{}`: {error}", parameter.name));
            }
        }
        if !wrong.is_empty() {
            let shown = wrong.iter().take(8).cloned().collect::<Vec<_>>().join("\n  ");
            let text = format!("{} tensors do not fit the model:\n  {shown}", wrong.len());
            return Err(RunError::Weights(text));
        }
        Ok(initial)
    }

    /// The f32 value of a parameter.
    pub fn master(&self, parameter: usize) -> Vec<f32> {
        let about = &self.graph.parameters()[parameter];
        if let Some(tensor) = self.tensors.get(&about.name) {
            return tensor.f32().into_owned();
        }
        about.spec.initial(self.seed, &about.name)
    }

    /// What the holder of some rows of a parameter starts with, in a place.
    pub fn owned(&self, parameter: usize, rows: Range<usize>, place: &Place) -> Owned {
        let columns = self.graph.parameters()[parameter].columns();
        let elements = rows.start * columns..rows.end * columns;
        let state = self.state(parameter).expect("states were checked when this was made");
        let master = Floats::at(place, self.master(parameter)[elements.clone()].to_vec());
        let state = state.slice(elements).at(place);
        Owned { rows, master, state, on_host: false, gradient: None }
    }

    /// The optimizer state of a parameter: fresh unless any buffer of it is there.
    fn state(&self, parameter: usize) -> Result<State, StateError> {
        let about = &self.graph.parameters()[parameter];
        let (rule, shape) = (about.spec.rule, &about.spec.shape);
        let buffers: Vec<(&str, Cow<'_, [f32]>)> = STATE_BUFFERS
            .into_iter()
            .filter_map(|which| {
                let tensor = self.tensors.get(&format!("optimizer.{which}.{}", about.name))?;
                Some((which, tensor.f32()))
            })
            .collect();
        if buffers.is_empty() {
            return Ok(self.optimizer.state(rule, shape));
        }
        let buffers: Vec<_> = buffers.iter().map(|(which, b)| (*which, b.as_ref())).collect();
        self.optimizer.restore(rule, shape, &buffers)
    }
}

/// Names of all buffers that any optimizer keeps.
const STATE_BUFFERS: [&str; 4] = ["momentum", "first_moment", "second_moment", "step"];
