//! All ways in which a microbatch goes through a chunk, each followed once.
//!
//! Microbatches take the same steps, so the same few flights come back again and again: a state
//! is a flight as its events left it, and a step from state to state says what is gained and
//! freed. A scan of a thousand microbatches runs the flights of a handful and looks the rest up.

use std::collections::BTreeMap;

use crate::{
    flight::{Flight, Live},
    memory::{
        Changed,
        events::{Event, Events},
        symbol::Symbol,
    },
};

/// Number of a state; 0 is the flight that holds nothing.
pub(super) type StateId = usize;

/// A chunk, on the experts' side with a visit.
pub(super) type Home = (usize, usize);

/// A flight on its way.
struct State {
    flight: Flight<Symbol>,
    live: Live,
    /// Steps taken from here so far, by chunk, visit and event.
    steps: BTreeMap<(Home, Event), usize>,
}

/// From one state to another.
pub(super) struct Step {
    /// Where it leads.
    pub to: StateId,
    /// Bytes alive before it.
    pub before: Live,
    /// The highest levels on the way.
    pub highs: Vec<Live>,
    /// Classes that change.
    pub changes: Vec<Changed>,
    /// Bytes on the host before it.
    pub host: Live,
    /// Bytes on the host after it, the most on the way.
    pub host_after: Live,
}

/// The states of one actor's flights.
pub(super) struct States<'a> {
    pub events: Events<'a>,
    states: Vec<State>,
    steps: Vec<Step>,
}

impl<'a> States<'a> {
    pub fn new(events: Events<'a>) -> Self {
        let mut states = States { events, states: Vec::new(), steps: Vec::new() };
        states.add(Flight::default());
        states
    }

    /// What is alive in a state.
    pub fn live(&self, state: StateId) -> &Live {
        &self.states[state].live
    }

    fn add(&mut self, mut flight: Flight<Symbol>) -> StateId {
        let live = flight.ledger().live().clone();
        self.states.push(State { flight, live, steps: BTreeMap::new() });
        self.states.len() - 1
    }

    /// The step that an event takes from a state.
    pub fn step(&mut self, from: StateId, home: Home, event: Event) -> &Step {
        let known = self.states[from].steps.get(&(home, event)).copied();
        let step = known.unwrap_or_else(|| self.follow(from, home, event));
        &self.steps[step]
    }

    fn follow(&mut self, from: StateId, home: Home, event: Event) -> usize {
        let mut flight = self.states[from].flight.clone();
        flight.ledger().restart();
        let host = flight.host().clone();
        self.events.apply(&mut flight, home, event);
        let host_after = flight.host().clone();
        let highs = flight.ledger().highs().to_vec();
        let to = if flight.is_empty() { 0 } else { self.add(flight) };
        let (before, after) = (self.states[from].live.clone(), &self.states[to].live);
        let changes = before.changes(after);
        self.steps.push(Step { to, before, highs, changes, host, host_after });
        let step = self.steps.len() - 1;
        self.states[from].steps.insert((home, event), step);
        step
    }
}
