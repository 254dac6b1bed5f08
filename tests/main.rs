//! Checks that need more than one crate, in one binary.

mod parity;
mod small;
mod tidy;
