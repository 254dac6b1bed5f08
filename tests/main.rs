//! Checks that need more than one crate, in one binary.

mod faults;
mod mechanisms;
mod parity;
mod resume;
mod small;
mod tidy;
