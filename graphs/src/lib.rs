//! From a model graph and a mesh to a checked plan; pure functions without clock, file or thread.
//!
//! Read in the order of lowering: [`source`] and [`decoder`] say what a job writes, [`model`]
//! checks it, [`mod@place`] cuts it, [`route`] finds what crosses, [`schedule`] orders the work,
//! [`passes`] turn orders into programs, [`check`] holds the laws, [`plan`] is what comes out and
//! [`fn@lower`] does all of it. [`text`] prints every level.
//!
//! Beside it, [`bare`] orders stand without a model: [`csv`] reads and writes them as other
//! programs do. What follows from a plan before it runs: [`memory`] counts its bytes by running the
//! [`flight`]s that the runtime runs, with symbols for tensors; [`price`] and [`mod@simulate`] time
//! it on a [`cluster`], and a [`timeline`] says what happens when; [`consequences`] are all of it,
//! and [`mod@search`] looks for better ones.

pub mod action;
pub mod address;
pub mod bare;
pub mod check;
pub mod cluster;
pub mod consequences;
pub mod csv;
pub mod decoder;
pub mod edge;
pub mod error;
pub mod flight;
mod lower;
pub mod memory;
pub mod mesh;
pub mod model;
pub mod overlap;
pub mod passes;
pub mod place;
pub mod plan;
pub mod policy;
pub mod price;
pub mod route;
pub mod schedule;
pub mod search;
pub mod share;
pub mod simulate;
pub mod source;
pub mod spec;
pub mod text;
pub mod timeline;

pub use crate::{
    consequences::Consequences,
    decoder::Decoder,
    error::PlanError,
    lower::lower,
    model::{ModelError, ModelGraph},
    plan::Plan,
    spec::PlanSpec,
};
