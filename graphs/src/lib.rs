//! From a model graph and a mesh to a checked plan; pure functions without clock, file or thread.

pub mod action;
pub mod decoder;
pub mod mesh;
pub mod model;
pub mod plan;
pub mod schedule;
pub mod source;
pub mod spec;
pub mod text;

pub use crate::{
    decoder::Decoder,
    model::{ModelError, ModelGraph},
    plan::Plan,
    spec::PlanSpec,
};
