//! The events of a step, what each waits for, and a run of them on paper.
//!
//! An event is an instruction; its number is that of [`Plan::numbered`]. What it waits for follows
//! from the instruction, its place in the program and a table of each channel's ends, so no edge
//! is ever stored: a step costs a few bytes for each message, and time in proportion to its length.

use std::collections::BTreeMap;

use crate::{
    plan::{ChannelId, Instruction, Plan, Side},
    spec::Communicators,
};

/// Number of an event.
pub(crate) type Event = u32;

/// In tables of events and tokens: there is none.
const NONE: u32 = u32::MAX;

/// Why one event comes after another that is not the one before it on its actor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    /// A token is received after it has been sent.
    Data(ChannelId),
    /// A token is sent after one that was sent `credits` tokens earlier has been used.
    Credit(ChannelId),
    /// A token crosses after the one that an end has issued before it on the same communicator.
    Common(ChannelId, Issued),
}

/// A message, and the actor that issued it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Issued {
    /// Its channel.
    pub(crate) channel: ChannelId,
    /// Its microbatch.
    pub(crate) microbatch: usize,
    /// Stage and side of the actor.
    pub(crate) by: (usize, Side),
}

/// An event that waits for another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wait {
    /// What cannot happen yet.
    pub(crate) event: Event,
    /// What has to happen first.
    pub(crate) needs: Event,
    /// Why.
    pub(crate) cause: Cause,
}

/// What the ends of a channel do, by token in the order of sending or by microbatch.
#[derive(Clone, Debug, Default)]
struct Ends {
    /// Microbatch of each token, and the event that sends it.
    sent: Vec<(u32, Event)>,
    /// Token of each microbatch.
    token: Vec<u32>,
    /// Event that receives each microbatch.
    received: Vec<Event>,
    /// What sender and receiver of each microbatch have issued before on the same communicator;
    /// empty if the channel shares none.
    before: Vec<[Option<Issued>; 2]>,
}

/// Sets an entry of a table that grows as needed.
fn set<T: Clone>(table: &mut Vec<T>, at: usize, value: T, empty: T) {
    if table.len() <= at {
        table.resize(at + 1, empty);
    }
    table[at] = value;
}

/// Reads an entry of a table of numbers.
fn get(table: &[u32], at: usize) -> Option<u32> {
    table.get(at).copied().filter(|&entry| entry != NONE)
}

/// The event graph of a plan.
pub(crate) struct Events<'a> {
    plan: &'a Plan,
    /// First event of each actor, two actors for each stage; last, the number of events.
    starts: Vec<Event>,
    ends: Vec<Ends>,
}

impl<'a> Events<'a> {
    /// Looks up where each message is sent and received.
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let mut starts: Vec<Event> = vec![0];
        for program in plan.programs.iter().flatten() {
            starts.push(starts[starts.len() - 1] + program.instructions.len() as Event);
        }
        let mut ends = vec![Ends::default(); plan.channels.len()];
        for (event, _, _, instruction) in plan.numbered() {
            match instruction {
                Instruction::Send { channel, microbatch } => {
                    let Ends { token, sent, .. } = &mut ends[channel];
                    set(token, microbatch, sent.len() as u32, NONE);
                    sent.push((microbatch as u32, event as Event));
                }
                Instruction::Receive { channel, microbatch } => {
                    set(&mut ends[channel].received, microbatch, event as Event, NONE);
                }
                _ => {}
            }
        }
        let mut events = Events { plan, starts, ends };
        if plan.communicators != Communicators::PerEdge {
            events.join();
        }
        events
    }

    /// Notes what the ends of each message have issued before it on its communicator.
    fn join(&mut self) {
        let mut last = BTreeMap::new();
        for (_, stage, side, instruction) in self.plan.numbered() {
            let (end, channel, microbatch) = match instruction {
                Instruction::Send { channel, microbatch } => (0, channel, microbatch),
                Instruction::Receive { channel, microbatch } => (1, channel, microbatch),
                _ => continue,
            };
            let by = (stage, side);
            let shared = self.plan.communicators.of(&self.plan.channels[channel]);
            if let Some(communicator) = shared {
                let issued = Issued { channel, microbatch, by };
                let table = &mut self.ends[channel].before;
                let mut both = table.get(microbatch).copied().unwrap_or_default();
                both[end] = last.insert((by, communicator), issued);
                set(table, microbatch, both, [None; 2]);
            }
        }
    }

    /// Index of the actor of an event: twice the stage, and one more for the experts' side.
    fn actor(&self, event: Event) -> usize {
        self.starts.partition_point(|&start| start <= event) - 1
    }

    /// What an event does.
    pub(crate) fn instruction(&self, event: Event) -> Instruction {
        let actor = self.actor(event);
        let program = &self.plan.programs[actor / 2][actor % 2];
        program.instructions[(event - self.starts[actor]) as usize]
    }

    /// What an event waits for, beside the one before it on its actor.
    fn waits(&self, event: Event, credits: &[usize]) -> [Option<Wait>; 3] {
        match self.instruction(event) {
            Instruction::Receive { channel, microbatch } => {
                let ends = &self.ends[channel];
                let sent = get(&ends.token, microbatch).map(|token| {
                    let needs = ends.sent[token as usize].1;
                    Wait { event, needs, cause: Cause::Data(channel) }
                });
                let before = ends.before.get(microbatch).copied().unwrap_or_default();
                let [theirs, own] = before.map(|issued| self.common(event, channel, issued?));
                [sent, theirs, own]
            }
            Instruction::Send { channel, microbatch } => {
                [self.credit(event, channel, microbatch, credits[channel]), None, None]
            }
            _ => [None; 3],
        }
    }

    fn common(&self, event: Event, channel: ChannelId, issued: Issued) -> Option<Wait> {
        let needs = get(&self.ends[issued.channel].received, issued.microbatch)?;
        Some(Wait { event, needs, cause: Cause::Common(channel, issued) })
    }

    /// The use of the token that gives its buffer to this one: the event after its receive.
    fn credit(
        &self,
        event: Event,
        channel: ChannelId,
        microbatch: usize,
        credits: usize,
    ) -> Option<Wait> {
        let ends = &self.ends[channel];
        let token = (get(&ends.token, microbatch)? as usize).checked_sub(credits)?;
        let received = get(&ends.received, ends.sent[token].0 as usize)?;
        let needs = received + 1;
        let is_used = needs < self.starts[self.actor(received) + 1];
        is_used.then_some(Wait { event, needs, cause: Cause::Credit(channel) })
    }
}

/// How far each actor has come in a run on paper.
///
/// No actor ever chooses, so the order in which they are tried changes nothing: either all come to
/// their ends, and the graph has no cycle, or some stand in a ring.
pub(crate) struct Run<'e, 'a> {
    events: &'e Events<'a>,
    /// Next event of each actor.
    at: Vec<Event>,
    /// The actors that wait for an event of each actor.
    asleep: Vec<Vec<usize>>,
}

impl<'e, 'a> Run<'e, 'a> {
    /// Before the first event.
    pub(crate) fn new(events: &'e Events<'a>) -> Self {
        let actors = events.starts.len() - 1;
        let at = events.starts[..actors].to_vec();
        Run { events, at, asleep: vec![Vec::new(); actors] }
    }

    /// How much an actor has to do yet before an event.
    pub(crate) fn distance(&self, event: Event) -> Event {
        event.saturating_sub(self.at[self.events.actor(event)])
    }

    /// Runs until all is done, or nothing moves with these credits: then tells the ring, each
    /// event waiting for one at or after that of the next.
    pub(crate) fn until_stuck(&mut self, credits: &[usize]) -> Option<Vec<Wait>> {
        self.asleep.iter_mut().for_each(Vec::clear);
        let mut awake: Vec<usize> = (0..self.at.len()).rev().collect();
        while let Some(actor) = awake.pop() {
            let start = self.at[actor];
            while self.next(actor).is_some() && self.wait(actor, credits).is_none() {
                self.at[actor] += 1;
            }
            if let Some(wait) = self.wait(actor, credits) {
                self.asleep[self.events.actor(wait.needs)].push(actor);
            }
            if self.at[actor] > start {
                awake.append(&mut self.asleep[actor]);
            }
        }
        self.ring(credits)
    }

    /// The next event of an actor, if it is not done.
    fn next(&self, actor: usize) -> Option<Event> {
        Some(self.at[actor]).filter(|&event| event < self.events.starts[actor + 1])
    }

    /// What the next event of an actor still waits for.
    fn wait(&self, actor: usize, credits: &[usize]) -> Option<Wait> {
        let waits = self.events.waits(self.next(actor)?, credits).into_iter().flatten();
        let is_done = |event: Event| event < self.at[self.events.actor(event)];
        waits.into_iter().find(|wait| !is_done(wait.needs))
    }

    fn ring(&self, credits: &[usize]) -> Option<Vec<Wait>> {
        let mut at = (0..self.at.len()).find(|&actor| self.next(actor).is_some())?;
        let (mut path, mut seen) = (Vec::new(), vec![None; self.at.len()]);
        while seen[at].is_none() {
            let wait = self.wait(at, credits)?;
            seen[at] = Some(path.len());
            path.push(wait);
            at = self.events.actor(wait.needs);
        }
        seen[at].map(|start| path.split_off(start))
    }
}
