//! Values and optimizer states between steps: slices from the actors, whole tensors for others.
//!
//! Names and shapes know no plan, so a run may go on under another mesh or another form of ZeRO.

use std::collections::BTreeMap;

use graphs::model::{ModelGraph, Parameter};
use ops::{Floats, Place, Tensor, optim::State};

use crate::{report::Report, worker::Worker};

/// Values and optimizer states by name, and where the feed stands.
#[derive(Debug)]
pub struct Snapshot {
    /// Masters under their names, states under `optimizer.<which>.<name>`.
    pub tensors: BTreeMap<String, Tensor>,
    /// Position of the feed after the last step.
    pub feed: serde_json::Value,
}

/// Rows of a parameter that one actor updates.
#[derive(Debug)]
pub struct Piece {
    /// Values in f32.
    pub master: Vec<f32>,
    /// Momentum or moments.
    pub state: State,
    /// Gradient of the last step, if the cluster audits.
    pub gradient: Option<Vec<f32>>,
}

/// Pieces by parameter and first row.
pub(crate) type Pieces = BTreeMap<(usize, usize), Piece>;

impl Worker {
    /// Sends copies of everything that is updated here to the conductor.
    pub(crate) fn snapshot(&self) {
        let mut pieces = Pieces::new();
        for (index, holding) in &self.holdings.parameters {
            let Some(owned) = &holding.owned else { continue };
            let piece = Piece {
                master: owned.master.to_host(),
                state: owned.state.at(&Place::Host),
                gradient: owned.gradient.as_ref().map(Floats::to_host),
            };
            pieces.insert((*index, owned.rows.start), piece);
        }
        self.post().report(Report::Snapshot { from: self.me, pieces });
    }
}

/// Joins the pieces of all actors to tensors under their names.
pub(crate) fn joined(graph: &ModelGraph, pieces: Pieces) -> BTreeMap<String, Tensor> {
    let mut wholes: BTreeMap<usize, Piece> = BTreeMap::new();
    for ((parameter, _), piece) in pieces {
        match wholes.get_mut(&parameter) {
            Some(whole) => whole.append(piece),
            None => drop(wholes.insert(parameter, piece)),
        }
    }
    let named = wholes.into_iter().map(|(index, whole)| whole.named(&graph.parameters()[index]));
    named.flatten().collect()
}

impl Piece {
    /// Adds the rows that follow.
    fn append(&mut self, next: Piece) {
        self.master.extend(next.master);
        self.state.append(next.state);
        if let (Some(gradient), Some(next)) = (&mut self.gradient, next.gradient) {
            gradient.extend(next);
        }
    }

    /// The tensors of a piece that has all rows of its parameter.
    fn named(self, parameter: &Parameter) -> Vec<(String, Tensor)> {
        let (name, shape) = (&parameter.name, &parameter.spec.shape);
        let mut tensors = vec![(name.clone(), Tensor::from_f32(shape, self.master))];
        for (which, buffer) in self.state.buffers() {
            let tensor = Tensor::from_f32(&[buffer.len()], buffer.to_vec());
            tensors.push((format!("optimizer.{which}.{name}"), tensor));
        }
        if let Some(gradient) = self.gradient {
            tensors.push((format!("gradient.{name}"), Tensor::from_f32(shape, gradient)));
        }
        tensors
    }
}
