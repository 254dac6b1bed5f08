//! The proof that a plan cannot hang.
//!
//! All instructions of all programs are the events of one graph. An event comes after
//! - *order*: the instruction before it on its actor;
//! - *data*: a receive after the send of its token;
//! - *credit*: the send of token `n + credits` after token `n` has been used, which is when the
//!   instruction after its receive is done;
//! - *communicator*: a receive after that of the message which either end has issued before on the
//!   same communicator, since a communicator carries one message after another and a send and
//!   its receive are one operation.
//!
//! If the graph has no cycle, then at any time some event that has not happened has nothing left
//! to wait for, so the plan ends, however long things take.
//!
//! One replica and one expert rank stand for all. Every rank of a stage runs the same program, and
//! a token of an all-to-all is received when all ranks have sent it. So the graph of all ranks
//! maps onto this one, event by event and edge by edge, and a cycle in it would be one here.

use crate::{
    check::events::{Cause, Event, Events, Issued, Run, Wait},
    plan::{Cargo, ChannelId, Instruction, Plan, Side},
};

/// A ring of actors that would wait for each other for ever.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the plan would hang:\n{}", story.join("\n"))]
pub struct Deadlock {
    /// Who waits for whom and why, one line each, and last what would break the ring.
    pub story: Vec<String>,
    /// A channel that breaks the ring if it gets one more credit.
    pub credit: Option<ChannelId>,
    /// Whether the ring goes through a communicator that channels share.
    pub shares: bool,
}

/// Proves that the plan cannot hang.
///
/// # Errors
///
/// [`Deadlock`], with one ring.
pub fn deadlock(plan: &Plan) -> Result<(), Deadlock> {
    let events = Events::new(plan);
    let credits: Vec<usize> = plan.channels.iter().map(|channel| channel.credits).collect();
    match Run::new(&events).until_stuck(&credits) {
        None => Ok(()),
        Some(ring) => Err(Teller { plan, events: &events }.tell(&ring)),
    }
}

/// Puts a ring into words.
struct Teller<'a> {
    plan: &'a Plan,
    events: &'a Events<'a>,
}

impl Teller<'_> {
    fn tell(&self, ring: &[Wait]) -> Deadlock {
        let mut story: Vec<String> = ring.iter().map(|wait| self.line(wait)).collect();
        let credits = ring.iter().filter_map(|wait| match wait.cause {
            Cause::Credit(channel) => Some(channel),
            Cause::Data(_) | Cause::Common(..) => None,
        });
        let credit = credits.min();
        let shares = ring.iter().any(|wait| matches!(wait.cause, Cause::Common(..)));
        story.push(match credit {
            Some(channel) => {
                let Words { from, cargo, .. } = self.words(channel);
                format!("one more credit for {cargo} from {from} would break the ring")
            }
            None if shares => "no credit can break the ring: the ends of a communicator issue \
                               messages in different orders; a communicator for each channel \
                               (communicators: PerEdge) would"
                .into(),
            None => {
                "no credit can break the ring: the order of work itself waits for itself".into()
            }
        });
        Deadlock { story, credit, shares }
    }

    fn line(&self, wait: &Wait) -> String {
        let late = self.microbatch(wait.event);
        match wait.cause {
            Cause::Data(channel) => {
                let Words { from, to, cargo } = self.words(channel);
                format!("{to} waits for {cargo} of microbatch {late} from {from}")
            }
            Cause::Credit(channel) => {
                let Words { from, to, cargo } = self.words(channel);
                // What is needed is the use of the token, right after its receive.
                let used = self.microbatch(wait.needs.saturating_sub(1));
                let credits = self.plan.channels[channel].credits;
                format!(
                    "{from} may send {cargo} of microbatch {late} when {to} has used microbatch \
                     {used} (credits: {credits})"
                )
            }
            Cause::Common(channel, Issued { channel: first, microbatch, by }) => {
                let Words { from, to, cargo } = self.words(channel);
                let (by, before) = (actor(by), self.words(first).cargo);
                format!(
                    "{to} waits for {cargo} of microbatch {late} from {from}, since {by} has \
                     issued {before} of microbatch {microbatch} earlier on the same communicator"
                )
            }
        }
    }

    fn microbatch(&self, event: Event) -> usize {
        match self.events.instruction(event) {
            Instruction::Receive { microbatch, .. }
            | Instruction::Send { microbatch, .. }
            | Instruction::Forward { microbatch, .. }
            | Instruction::Restore { microbatch, .. }
            | Instruction::Copy { microbatch, .. }
            | Instruction::BackwardInput { microbatch, .. }
            | Instruction::BackwardWeight { microbatch, .. } => microbatch,
            Instruction::Reduce { .. } => 0,
        }
    }

    fn words(&self, channel: ChannelId) -> Words {
        let channel = &self.plan.channels[channel];
        let cargo = match channel.cargo {
            Cargo::Activations { chunk } => format!("the activations of chunk {chunk}"),
            Cargo::Gradients { chunk } => format!("the gradients of chunk {chunk}"),
            Cargo::Dispatch { chunk, visit } => format!("the rows of chunk {chunk} visit {visit}"),
            Cargo::Combine { chunk, visit } => {
                format!("the results of chunk {chunk} visit {visit}")
            }
            Cargo::CombineGradients { chunk, visit } => {
                format!("the gradients of results of chunk {chunk} visit {visit}")
            }
            Cargo::DispatchGradients { chunk, visit } => {
                format!("the gradients of rows of chunk {chunk} visit {visit}")
            }
        };
        Words { from: actor(channel.from), to: actor(channel.to), cargo }
    }
}

/// The words for a channel.
struct Words {
    from: String,
    to: String,
    cargo: String,
}

fn actor((stage, side): (usize, Side)) -> String {
    match side {
        Side::Stage => format!("stage {stage}"),
        Side::Experts => format!("the experts of stage {stage}"),
    }
}
