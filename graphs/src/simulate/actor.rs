//! The actors of a simulated plan, and what they wait for.

use crate::{
    plan::{Plan, Side},
    simulate::post::{Sent, Taken},
    timeline::Cause,
};

/// No event: what comes first depends on nothing.
pub(super) const NONE: u32 = u32::MAX;

/// What an actor waited for last.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    Message(Sent),
    Buffer(Taken),
    Core,
    Bus,
}

/// One actor of one copy.
pub(super) struct Actor {
    pub copy: usize,
    pub stage: usize,
    pub side: Side,
    /// Event number of its first instruction in the first copy: the number of the instruction.
    pub first: usize,
    /// Next instruction.
    pub at: usize,
    pub time: f64,
    /// Event that its time follows from.
    pub after: u32,
    pub reason: Option<Reason>,
    pub is_parked: bool,
}

/// Why a device was idle since some time, and the event that was waited for.
pub(super) fn cause(reason: Option<Reason>, since: f64) -> (Cause, u32) {
    match reason {
        Some(Reason::Message(sent)) => {
            let cause = match sent {
                Sent { ready, .. } if ready > since => Cause::Data,
                Sent { start, .. } if start > since => Cause::Link,
                _ => Cause::Transfer,
            };
            (cause, sent.event)
        }
        Some(Reason::Buffer(taken)) => (Cause::Credit, taken.after),
        Some(Reason::Core) => (Cause::Core, NONE),
        Some(Reason::Bus) => (Cause::HostLink, NONE),
        None => (Cause::Transfer, NONE),
    }
}

/// The actors of all copies, copy by copy, in the order of the plan's numbers.
pub(super) fn actors(plan: &Plan, copies: usize) -> Vec<Actor> {
    let mut actors = Vec::new();
    for copy in 0..copies {
        let mut first = 0;
        for (stage, programs) in plan.programs.iter().enumerate() {
            for side in [Side::Stage, Side::Experts] {
                actors.push(Actor {
                    copy,
                    stage,
                    side,
                    first,
                    at: 0,
                    time: 0.0,
                    after: NONE,
                    reason: None,
                    is_parked: false,
                });
                first += programs[side as usize].instructions.len();
            }
        }
    }
    actors
}
