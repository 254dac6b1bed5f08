//! The laws of orders, programs and channels; checked after every pass, so that a plan that
//! exists can be run.
//!
//! - [`orders`]: every stage computes each of its chunks once for each microbatch, forward before
//!   backward, the input's gradient before the weights'.
//! - [`programs`]: every segment is computed once, after what it needs has arrived and before
//!   what it makes is sent; every send has its receive.
//! - [`deadlock`]: data, credits, communicators and program order together have no cycle, so the
//!   plan cannot hang, whatever the times.
//! - [`hang`]: the same for bare orders, which have no programs.

mod deadlock;
pub(crate) mod events;
mod hang;
mod orders;
mod programs;

pub use crate::check::{
    deadlock::{Deadlock, deadlock},
    hang::{Hang, fewest_credits, hang},
    orders::{OrderError, orders},
    programs::{ProgramError, programs},
};

#[cfg(test)]
mod tests;
