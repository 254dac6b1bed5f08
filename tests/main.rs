//! Checks that need more than one crate, in one binary.

mod broken;
mod examples;
mod faults;
mod generate;
mod gpu;
mod hangs;
mod instructions;
mod kill;
mod mechanisms;
mod memory;
mod pages;
mod parity;
mod phases;
mod policies;
mod processes;
mod reference;
mod resume;
mod sampled;
mod small;
mod tidy;
mod trace;
mod zero;
