//! What every actor is doing right now, for the watchdog.
//!
//! Each actor writes its own slot when its state changes; only the watchdog reads. The counter
//! rises with every instruction done, so two equal readings mean that nothing moved. Over several
//! processes each has a board, in which the slots of far actors rest.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use graphs::address::Address;

/// What an actor is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Doing {
    /// Nothing: between two steps, or done with its part.
    Resting,
    /// Computing, reading or writing; it will finish by itself.
    Working(String),
    /// Waiting for others.
    Waiting(String),
}

/// A look at a board, or at the boards of several processes together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sight {
    /// Instructions done so far, by anybody.
    pub moves: u64,
    /// Whether somebody is still at work, so that waiting may help.
    pub is_working: bool,
    /// Who waits for what, one line each.
    pub story: Vec<String>,
}

impl Sight {
    /// Adds what is to see elsewhere.
    pub fn add(&mut self, other: Sight) {
        self.moves += other.moves;
        self.is_working |= other.is_working;
        self.story.extend(other.story);
    }
}

/// One slot for each compute actor, one for the loader, and the counter.
#[derive(Debug)]
pub struct Board {
    slots: Vec<Mutex<Doing>>,
    moves: AtomicU64,
}

impl Board {
    /// A board on which everybody rests.
    pub fn new(actors: usize) -> Self {
        let slots = (0..=actors).map(|_| Mutex::new(Doing::Resting)).collect();
        Board { slots, moves: AtomicU64::new(0) }
    }

    /// Writes an actor's slot; the loader's is the one after the last compute actor.
    pub fn write(&self, slot: usize, doing: Doing) {
        *self.slots[slot].lock().expect("no thread panics while it holds a slot") = doing;
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more instruction as done.
    pub fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, slot: usize) -> Doing {
        self.slots[slot].lock().expect("no thread panics while it holds a slot").clone()
    }

    /// What there is to see.
    pub fn sight(&self, actors: &[Address]) -> Sight {
        let line = |(slot, address): (usize, &Address)| match self.read(slot) {
            Doing::Waiting(what) => Some(format!("{address} waits for {what}")),
            _ => None,
        };
        let slots = 0..self.slots.len();
        Sight {
            moves: self.moves.load(Ordering::Relaxed),
            is_working: { slots }.any(|slot| matches!(self.read(slot), Doing::Working(_))),
            story: actors.iter().enumerate().filter_map(line).collect(),
        }
    }
}
