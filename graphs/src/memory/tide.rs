//! The level of what comes and goes on one actor, kept the same way on paper and in a run.

use crate::{
    edge::Class,
    flight::{Amount, Live},
    memory::{Bytes, Level, Peak},
};

/// A class whose bytes change: before, after.
pub type Changed = (Class, Amount, Amount);

/// Bytes alive on an actor, and the most there ever was.
#[derive(Clone, Debug, Default)]
pub struct Tide {
    live: Bytes,
    total: u64,
    high: u64,
    instruction: usize,
    peak: Peak,
}

impl Tide {
    /// Begins an instruction, by its position in the program.
    pub fn start(&mut self, instruction: usize) {
        self.instruction = instruction;
        self.high = self.total;
    }

    /// Lets a flight go from one level to another by way of some highs, for so many rows.
    pub fn pass(&mut self, before: &Live, highs: &[Live], changes: &[Changed], rows: u64) {
        let base = self.total - before.total().at(rows);
        for high in highs {
            let level = base + high.total().at(rows);
            self.high = self.high.max(level);
            if level > self.peak.bytes {
                let mut by_class = self.live;
                by_class.subtract(&Bytes::of(before, rows));
                by_class.add(&Bytes::of(high, rows));
                self.peak = Peak { bytes: level, by_class, instruction: self.instruction };
            }
        }
        for &(class, before, after) in changes {
            let bytes = self.live.get_mut(class);
            *bytes = *bytes + after.at(rows) - before.at(rows);
            self.total = self.total + after.at(rows) - before.at(rows);
        }
    }

    /// Adds bytes that stay until the end of the program; a flight passes next.
    pub fn grow(&mut self, class: Class, bytes: u64) {
        *self.live.get_mut(class) += bytes;
        self.total += bytes;
    }

    /// What is alive now.
    pub fn live(&self) -> &Bytes {
        &self.live
    }

    /// The most since the instruction began, and what there is now.
    pub fn level(&self) -> Level {
        Level { high: self.high, after: self.total }
    }

    /// The highest moment so far.
    pub fn peak(&self) -> Peak {
        self.peak
    }
}
