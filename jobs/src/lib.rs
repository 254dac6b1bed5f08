//! Job files, the command line and reports for people.

pub mod data;
pub mod huggingface;
