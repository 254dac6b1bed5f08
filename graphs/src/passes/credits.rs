//! Gives each channel as many credits as the plan asks for: so many, or as few as it can run with
//! and some more.
//!
//! The fewest are found by a run on paper, without times, from one credit a channel. When nothing
//! moves, some actors wait for each other in a ring. Of the channels in it that are full, the one
//! whose receiver has most to do before it takes the next message has to hold more, so it gets one
//! more credit. More credits never stop what ran before, so one run finds enough of them. Then
//! each channel that got some gives back what the later ones have made needless. Slack on top lets
//! a sender run ahead of its receiver, so that sending costs no waiting where the receiver is
//! merely late.

use std::cmp::Reverse;

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

/// The least credits: with one fewer on any channel the plan would hang, or have none there.
pub fn least(plan: &Plan) -> Vec<usize> {
    let events = Events::new(plan);
    let mut credits = enough(&events, plan.channels.len());
    let runs = |credits: &[usize]| Run::new(&events).until_stuck(credits).is_none();
    for channel in 0..credits.len() {
        while credits[channel] > 1 {
            credits[channel] -= 1;
            if !runs(&credits) {
                credits[channel] += 1;
                break;
            }
        }
    }
    credits
}

/// Credits with which the plan runs, if any help.
fn enough(events: &Events<'_>, channels: usize) -> Vec<usize> {
    let mut run = Run::new(events);
    let mut credits = vec![1; channels];
    while let Some(ring) = run.until_stuck(&credits) {
        let full = ring.iter().filter_map(|wait| match wait.cause {
            Cause::Credit(channel) => Some((run.distance(wait.needs), Reverse(channel))),
            Cause::Data(_) | Cause::Common(..) => None,
        });
        let Some((_, Reverse(channel))) = full.max() else { break };
        credits[channel] += 1;
    }
    credits
}

#[cfg(test)]
mod tests;
