//! Whether bare orders hang, for a number of credits and any times.
//!
//! The orders are run on paper. Each rank does one thing after another. A channel, from one chunk
//! to its neighbour on another rank, has so many credits: places for what has been sent and not
//! yet received. A send waits for a place, a receive for its token; without credits, the two wait
//! for each other. Orders that do not write their messages receive right before the work and
//! send right after it. No rank ever chooses, so if one such run ends, all do, and what it waits
//! for when nothing moves is a ring that no timing can avoid.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    action::Action,
    bare::{Bare, Step, Token},
};

/// Orders that would wait for themselves for ever.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the orders would hang:\n{}", story.join("\n"))]
pub struct Hang {
    /// Who waits for whom and why, one line each, and last what would help.
    pub story: Vec<String>,
}

/// Runs the orders on paper with so many credits for each channel.
///
/// # Errors
///
/// [`Hang`], with one ring and the fewest credits that would break it.
pub fn hang(bare: &Bare, credits: usize) -> Result<(), Hang> {
    let Err(mut story) = Run::new(bare, credits).run() else { return Ok(()) };
    story.push(match fewest(bare) {
        Some(more) => format!("with credits: {more} they would run"),
        None => "no credit can break the ring: the order of work itself waits for itself".into(),
    });
    Err(Hang { story })
}

/// The fewest credits for each channel, from 1 on, with which the orders run.
///
/// # Errors
///
/// [`Hang`] if they hang however many there are.
pub fn fewest_credits(bare: &Bare) -> Result<usize, Hang> {
    // With a place for every microbatch no send ever waits, so more cannot help.
    hang(bare, bare.microbatches())?;
    Ok(fewest(bare).unwrap_or(bare.microbatches()))
}

fn fewest(bare: &Bare) -> Option<usize> {
    let runs = |&credits: &usize| Run::new(bare, credits).run().is_ok();
    Some(bare.microbatches()).filter(runs)?;
    (1..=bare.microbatches()).find(runs)
}

/// One thing that a rank does, and the index of its cell.
#[derive(Clone, Copy)]
struct Event {
    cell: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Compute,
    Send(Token),
    Receive(Token),
}

/// What a rank waits for.
enum Wait {
    /// Work that does not stand before it in its own order.
    Own(Action),
    Take(Token),
    Give(Token),
}

struct Run<'a> {
    bare: &'a Bare,
    credits: usize,
    events: Vec<Vec<Event>>,
    /// Next event of each rank.
    at: Vec<usize>,
    /// Work done so far, in parts.
    done: BTreeSet<Action>,
    /// Tokens sent and not yet received, by channel.
    under_way: BTreeMap<(usize, usize), BTreeSet<usize>>,
}

impl<'a> Run<'a> {
    fn new(bare: &'a Bare, credits: usize) -> Self {
        let events = (0..bare.rows().len()).map(|rank| events(bare, rank)).collect::<Vec<_>>();
        let (at, done) = (vec![0; events.len()], BTreeSet::new());
        Run { bare, credits, events, at, done, under_way: BTreeMap::new() }
    }

    /// Runs to the end, or tells the ring.
    fn run(mut self) -> Result<(), Vec<String>> {
        let ranks = self.at.len();
        while (0..ranks).fold(false, |moved, rank| self.advance(rank) | moved) {}
        match (0..ranks).find(|&rank| self.next(rank).is_some()) {
            Some(stuck) => Err(self.tell(stuck)),
            None => Ok(()),
        }
    }

    fn next(&self, rank: usize) -> Option<Event> {
        self.events[rank].get(self.at[rank]).copied()
    }

    /// Lets one rank go as far as it comes; says whether it came anywhere.
    fn advance(&mut self, rank: usize) -> bool {
        let start = self.at[rank];
        while self.next(rank).is_some() && self.wait(rank).is_none() {
            self.act(rank);
        }
        self.at[rank] > start
    }

    /// What the next event of a rank still waits for.
    fn wait(&self, rank: usize) -> Option<Wait> {
        let Event { cell, kind } = self.next(rank)?;
        match kind {
            Kind::Compute => {
                let actions = self.bare.rows()[rank][cell].step.actions();
                let mut needs = actions.into_iter().flat_map(|action| self.bare.needs(action));
                let is_own = |need: &Action| self.bare.places()[need.chunk] == rank;
                needs.find(|need| is_own(need) && !self.done.contains(need)).map(Wait::Own)
            }
            Kind::Receive(token) => {
                let has = self.channel(token).is_some_and(|sent| sent.contains(&token.microbatch));
                (!has && !self.meets(token)).then_some(Wait::Take(token))
            }
            Kind::Send(token) => {
                let full = self.channel(token).map_or(0, BTreeSet::len) >= self.credits;
                // Without credits the receiver takes it out of the sender's hands.
                full.then_some(Wait::Give(token))
            }
        }
    }

    fn channel(&self, token: Token) -> Option<&BTreeSet<usize>> {
        self.under_way.get(&(token.from, token.to))
    }

    /// Whether there are no credits and the sender stands at just this send.
    fn meets(&self, token: Token) -> bool {
        let sender = self.next(self.bare.places()[token.from]);
        let sends = sender.is_some_and(|e| matches!(e.kind, Kind::Send(it) if it == token));
        self.credits == 0 && sends
    }

    /// Does the next event of a rank.
    fn act(&mut self, rank: usize) {
        let Some(Event { cell, kind }) = self.next(rank) else { return };
        self.at[rank] += 1;
        match kind {
            Kind::Compute => {
                let actions = self.bare.rows()[rank][cell].step.actions();
                self.done.extend(actions.into_iter().flat_map(Action::parts));
            }
            Kind::Send(token) => {
                let channel = self.under_way.entry((token.from, token.to)).or_default();
                channel.insert(token.microbatch);
            }
            Kind::Receive(token) if self.credits == 0 => {
                self.at[self.bare.places()[token.from]] += 1;
            }
            Kind::Receive(token) => {
                let channel = self.under_way.entry((token.from, token.to)).or_default();
                channel.remove(&token.microbatch);
            }
        }
    }

    /// The ring that a stuck rank waits for.
    fn tell(&self, stuck: usize) -> Vec<String> {
        let (mut seen, mut story) = (BTreeMap::new(), Vec::new());
        let mut at = stuck;
        while let Some((wait, event)) = self.wait(at).zip(self.next(at)) {
            if let Some(start) = seen.insert(at, story.len()) {
                return story.split_off(start);
            }
            let (line, next) = self.line(at, event, &wait);
            story.push(line);
            at = next;
        }
        story
    }

    /// What a rank waits for, in words, and the rank that could help.
    fn line(&self, rank: usize, event: Event, wait: &Wait) -> (String, usize) {
        let cell = self.bare.rows()[rank][event.cell];
        let at = format!("rank {rank}, cell {}, {}:", cell.column, cell.step);
        let places = self.bare.places();
        match *wait {
            Wait::Own(need) => {
                let why = match cell.step {
                    Step::Pair(..) => "a pair starts when both can, and this one needs",
                    _ => "needs",
                };
                (format!("{at} {why} {need}, which does not stand before it"), rank)
            }
            Wait::Take(it) => {
                let from = places[it.from];
                (format!("{at} waits for {} from rank {from}", cargo(it)), from)
            }
            Wait::Give(it) => {
                let (to, credits) = (places[it.to], self.credits);
                let what = cargo(it);
                (format!("{at} waits to send {what} to rank {to} (credits: {credits})"), to)
            }
        }
    }
}

fn cargo(token: Token) -> String {
    let what = if token.from < token.to { "activations" } else { "gradients" };
    format!("the {what} of chunk {} for microbatch {}", token.from, token.microbatch)
}

/// All that a rank does, with messages around the work unless they are written out.
fn events(bare: &Bare, rank: usize) -> Vec<Event> {
    let writes = !bare.has_messages();
    let mut events = Vec::new();
    for (cell, it) in bare.rows()[rank].iter().enumerate() {
        let mut add = |kind| events.push(Event { cell, kind });
        match it.step {
            Step::Send(token) => add(Kind::Send(token)),
            Step::Receive(token) => add(Kind::Receive(token)),
            Step::Work(_) | Step::Pair(..) => {
                let actions = if writes { it.step.actions() } else { Vec::new() };
                actions.iter().flat_map(|&a| bare.takes(a)).for_each(|t| add(Kind::Receive(t)));
                add(Kind::Compute);
                actions.iter().filter_map(|&a| bare.makes(a)).for_each(|t| add(Kind::Send(t)));
            }
        }
    }
    events
}

#[cfg(test)]
mod tests;
