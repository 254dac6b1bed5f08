//! What all actors of a cluster know from the start.

use graphs::{
    address::Address,
    model::ModelGraph,
    plan::Plan,
    share::{Hosted, Share},
};
use ops::{Context, DType, Place, optim::Optimizer};

use crate::{
    arena::Arenas,
    board::{Board, Sight},
    pace::Pace,
};

/// The plan, the model and the settings; shared and never changed.
#[derive(Debug)]
pub struct Brief {
    /// What everybody does.
    pub plan: Plan,
    /// The nodes that the plan numbers.
    pub graph: ModelGraph,
    /// Holders, owner and slices of each parameter.
    pub shares: Vec<Share>,
    /// Slices whose masters and states live on the host.
    pub hosted: Hosted,
    /// Bytes a second between a rank and its host, if a bus is emulated.
    pub bus: Option<f64>,
    /// Update rules and their settings.
    pub optimizer: Optimizer,
    /// Format of activations and of the values that forward and backward read.
    pub dtype: DType,
    /// Whether gradients and parameters are hashed each step, for `verify`.
    pub audit: bool,
    /// Speeds of the ranks' devices, if they are emulated.
    pub pace: Option<Pace>,
    /// The memories of the ranks' devices.
    pub arenas: Arenas,
    /// Where parameters and activations of each rank live.
    pub places: Vec<Place>,
    /// Where everybody writes what it is doing.
    pub board: Board,
}

impl Brief {
    /// Where the rank of an actor lives.
    pub fn place(&self, of: Address) -> &Place {
        &self.places[of.index(&self.plan.mesh) / 2]
    }

    /// What the actors of this process are doing.
    pub fn sight(&self) -> Sight {
        self.board.sight(&Address::all(&self.plan.mesh))
    }

    /// What every operator call of a step has in common.
    pub fn context(&self) -> Context {
        Context {
            sequence: self.plan.batch.context,
            dtype: self.dtype,
            loss_scale: 1.0 / self.plan.batch.tokens() as f32,
        }
    }
}
