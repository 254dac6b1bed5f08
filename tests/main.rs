//! Checks that need more than one crate, in one binary.

mod parity;
mod reference;
mod small;
mod tidy;
