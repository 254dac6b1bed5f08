//! Gives each channel as many credits as the plan asks for: so many, or as few as it can run with
//! and some more.
//!
//! The fewest are found by a run on paper, without times, from one credit a channel. When nothing
//! moves, some actors wait for each other in a ring, and of the channels in the ring whose sender
//! lacks a credit the first gets one more. More credits never stop what ran before, so one run
//! finds enough of them. Those on top let a sender run ahead of its receiver, so that sending
//! costs no waiting where the receiver is merely late.

use crate::{
    check::events::{Cause, Events, Run},
    plan::Plan,
    spec::Credits,
};

/// Sets the credits of all channels.
///
/// A plan that no credits can help keeps the ones it has by then; the proof will tell its story.
pub fn set(plan: &mut Plan, wanted: Credits) {
    let credits = match wanted {
        Credits::Fixed(credits) => vec![credits; plan.channels.len()],
        Credits::Least { slack } => {
            least(plan).into_iter().map(|credits| credits.saturating_add(slack)).collect()
        }
    };
    for (channel, credits) in plan.channels.iter_mut().zip(credits) {
        channel.credits = credits;
    }
}

/// The credits with which each channel can run, found from one each.
pub fn least(plan: &Plan) -> Vec<usize> {
    let events = Events::new(plan);
    let mut run = Run::new(&events);
    let mut credits = vec![1; plan.channels.len()];
    while let Some(ring) = run.until_stuck(&credits) {
        let starved = ring.iter().filter_map(|wait| match wait.cause {
            Cause::Credit(channel) => Some(channel),
            Cause::Data(_) | Cause::Common(..) => None,
        });
        let Some(channel) = starved.min() else { break };
        credits[channel] += 1;
    }
    credits
}

#[cfg(test)]
mod tests;
