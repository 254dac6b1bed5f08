//! What the verbs of the command line do, one file each.

pub mod bench;
pub mod check;
pub mod diff;
pub mod doctor;
pub mod eval;
pub mod explain;
pub mod export;
pub mod import;
pub mod measure;
pub mod plan;
pub mod resolve;
pub mod run;
pub mod sample;
pub mod schedule;
pub mod search;
pub mod simulate;
pub mod verify;
pub mod viz;
