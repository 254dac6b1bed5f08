//! The door: job files, the command line and reports for people.

pub mod code;
pub mod de;
pub mod explain;
pub mod parse;
pub mod quantity;
pub mod report;
pub mod source;
pub mod tree;
