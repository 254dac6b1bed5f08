//! What a simulated step comes to.

use std::collections::BTreeMap;

use crate::timeline::Cause;

/// A step in figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Seconds of the step, optimizer phase and all.
    pub makespan: f64,
    /// Seconds until the last program is done.
    pub program: f64,
    /// Part of the program's time in which the ranks idle, on average: the bubble and everything
    /// else that is waited for.
    pub idle: f64,
    /// Tokens a second of all ranks together.
    pub tokens_per_second: f64,
    /// Model flops utilisation: [`crate::price::flops_of_step`] over what all devices could have
    /// done in this time at the peak.
    pub mfu: f64,
    /// One entry for each pipeline rank.
    pub ranks: Vec<RankOutcome>,
    /// The chain of spans that the step had to wait for, first to last, by number. It ends with
    /// the last to end, and each of the others is what the next one waited for.
    pub chain: Vec<usize>,
}

/// A rank in figures; it stands for all replicas and expert ranks of its stage.
#[derive(Clone, Debug, PartialEq)]
pub struct RankOutcome {
    /// Seconds from its first computation to its last.
    pub span: f64,
    /// Seconds in which it computes.
    pub busy: f64,
    /// Seconds in which it computes nothing until the step ends, by cause.
    pub idle: BTreeMap<Cause, f64>,
    /// Seconds in which it sends.
    pub sending: f64,
    /// Exposed communication: seconds in which it computes nothing because a message that was
    /// ready is under way or waits for a link.
    pub exposed: f64,
}
