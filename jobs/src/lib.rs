//! The door: job files, the command line and reports for people.

pub mod data;
pub mod huggingface;
pub mod train;
pub mod verify;
pub mod view;
