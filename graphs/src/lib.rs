//! From a model graph and a mesh to a checked plan; pure functions without clock, file or thread.

pub mod action;
pub mod mesh;
pub mod model;
pub mod plan;
