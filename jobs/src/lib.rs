//! The door: job files, the command line and reports for people.
//!
//! Reading order for job files: [`source`] and [`tree`] are what a text becomes, `parse` reads it,
//! [`load()`] puts files, presets, plans and arguments together, `de` makes typed values of the
//! tree, [`job`] says what they are, `check` what they must keep, [`report`] how mistakes look.

mod check;
mod code;
pub mod commands;
pub mod consequences;
pub mod data;
mod de;
pub mod device;
pub mod exit;
pub mod explain;
pub mod folder;
pub mod huggingface;
pub mod job;
pub mod library;
pub mod load;
pub mod machine;
pub mod measure;
pub mod memory;
mod overlay;
mod parse;
pub mod peak;
pub mod phase;
pub mod prepare;
mod print;
pub mod processes;
pub mod profile;
pub mod quantity;
mod recorded;
pub mod report;
mod resolve;
mod saved;
mod settings;
pub mod source;
pub mod train;
pub mod tree;
pub mod verify;
pub mod view;

pub use crate::{
    job::Job,
    load::{Loaded, Request, load, load_model, load_resolved},
    report::Report,
};
