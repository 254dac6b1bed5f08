//! What the program does for each verb of the command line.

pub mod bench;
pub mod eval;
pub mod export;
pub mod run;
pub mod sample;
pub mod training;
pub mod verify;
