//! Checks that need more than one crate, in one binary.

mod faults;
mod parity;
mod reference;
mod resume;
mod small;
mod tidy;
