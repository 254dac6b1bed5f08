//! Reports to the conductor on the wire.

use graphs::{
    edge::Class,
    memory::{ActorMemory, Alive, Bytes, Fixed, Level, Peak, Reserve},
    share::Exchange,
};
use kernels::squares::Squares;
use ops::{Floats, optim::State};

use super::{Damaged, Packing, Unpacking, Wire};
use crate::{
    report::{Joined, Measured, Report, Seen, Updated},
    snapshot::{Piece, Pieces},
    trace::{Notes, Part},
};

impl Wire for Report {
    fn put(self, to: &mut Packing) {
        match self {
            Report::Loaded { position } => (0_u8, position.to_string()).put(to),
            Report::Computed { from, seen, memory } => (1_u8, from, seen, memory).put(to),
            Report::Joined { from, gradients } => (2_u8, from, gradients).put(to),
            Report::Updated { from, done, notes } => (3_u8, from, done, notes).put(to),
            Report::Snapshot { from, pieces } => {
                (4_u8, from, pieces.into_iter().collect::<Vec<_>>()).put(to);
            }
            Report::Full { from, action, class, grown, held, limit } => {
                (5_u8, from, action, class, (grown, held, limit)).put(to);
            }
            Report::Failed { actor, action, cause, is_full } => {
                (6_u8, actor, action, cause, is_full).put(to);
            }
        }
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(match u8::take(from)? {
            0 => {
                let position = serde_json::from_str(&String::take(from)?).map_err(|_| Damaged)?;
                Report::Loaded { position }
            }
            1 => {
                let (from, seen, memory) = Wire::take(from)?;
                Report::Computed { from, seen, memory }
            }
            2 => {
                let (from, gradients) = Wire::take(from)?;
                Report::Joined { from, gradients }
            }
            3 => {
                let (from, done, notes) = Wire::take(from)?;
                Report::Updated { from, done, notes }
            }
            4 => {
                let (from, pieces): (_, Vec<((usize, usize), Piece)>) = Wire::take(from)?;
                Report::Snapshot { from, pieces: Pieces::from_iter(pieces) }
            }
            5 => {
                let (from, action, class, (grown, held, limit)) = Wire::take(from)?;
                Report::Full { from, action, class, grown, held, limit }
            }
            6 => {
                let (actor, action, cause, is_full) = Wire::take(from)?;
                Report::Failed { actor, action, cause, is_full }
            }
            _ => return Err(Damaged),
        })
    }
}

impl Wire for Seen {
    fn put(self, to: &mut Packing) {
        let Seen { losses, max_logits, loads, .. } = self;
        let Seen { busy_seconds, product_seconds, copy_wait_seconds, .. } = self;
        (losses, max_logits, loads).put(to);
        (busy_seconds, product_seconds, copy_wait_seconds).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (losses, max_logits, loads) = Wire::take(from)?;
        let (busy_seconds, product_seconds, copy_wait_seconds) = Wire::take(from)?;
        Ok(Seen { losses, max_logits, loads, busy_seconds, product_seconds, copy_wait_seconds })
    }
}

impl Wire for Measured {
    fn put(self, to: &mut Packing) {
        let Measured { actor, trail, rows } = self;
        (actor, trail, rows).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (actor, trail, rows) = Wire::take(from)?;
        Ok(Measured { actor, trail, rows })
    }
}

impl Wire for ActorMemory {
    fn put(self, to: &mut Packing) {
        let ActorMemory { address, fixed, reserve, peak, host, number, alive, levels } = self;
        (address, fixed, reserve).put(to);
        (peak, host, number, alive, levels).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (address, fixed, reserve) = Wire::take(from)?;
        let (peak, host, number, alive, levels) = Wire::take(from)?;
        Ok(ActorMemory { address, fixed, reserve, peak, host, number, alive, levels })
    }
}

impl Wire for Fixed {
    fn put(self, to: &mut Packing) {
        let Fixed { parameters, masters, states, inputs, host } = self;
        (parameters, masters, states, inputs, host).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (parameters, masters, states, inputs, host) = Wire::take(from)?;
        Ok(Fixed { parameters, masters, states, inputs, host })
    }
}

impl Wire for Reserve {
    fn put(self, to: &mut Packing) {
        let Reserve { messages, reduction, update } = self;
        (messages, reduction, update).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (messages, reduction, update) = Wire::take(from)?;
        Ok(Reserve { messages, reduction, update })
    }
}

impl Wire for Peak {
    fn put(self, to: &mut Packing) {
        let Peak { bytes, by_class, instruction } = self;
        (bytes, by_class, instruction).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (bytes, by_class, instruction) = Wire::take(from)?;
        Ok(Peak { bytes, by_class, instruction })
    }
}

impl Wire for Bytes {
    fn put(self, to: &mut Packing) {
        Class::ALL.into_iter().for_each(|class| self.get(class).put(to));
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let mut bytes = Bytes::default();
        for class in Class::ALL {
            *bytes.get_mut(class) = u64::take(from)?;
        }
        Ok(bytes)
    }
}

impl Wire for Class {
    fn put(self, to: &mut Packing) {
        (self as u8).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let number = u8::take(from)?;
        Class::ALL.into_iter().find(|class| *class as u8 == number).ok_or(Damaged)
    }
}

impl Wire for Alive {
    fn put(self, to: &mut Packing) {
        let Alive { class, flights, bytes } = self;
        (class, flights, bytes).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (class, flights, bytes) = Wire::take(from)?;
        Ok(Alive { class, flights, bytes })
    }
}

impl Wire for Level {
    fn put(self, to: &mut Packing) {
        let Level { high, after } = self;
        (high, after).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (high, after) = Wire::take(from)?;
        Ok(Level { high, after })
    }
}

impl Wire for Squares {
    fn put(self, to: &mut Packing) {
        self.to_words().into_iter().for_each(|word| word.put(to));
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let mut words = Squares::default().to_words();
        for word in &mut words {
            *word = u64::take(from)?;
        }
        Ok(Squares::from_words(words))
    }
}

impl Wire for Joined {
    fn put(self, to: &mut Packing) {
        let Joined { parameter, squares, hash } = self;
        (parameter, squares, hash).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (parameter, squares, hash) = Wire::take(from)?;
        Ok(Joined { parameter, squares, hash })
    }
}

impl Wire for Updated {
    fn put(self, to: &mut Packing) {
        let Updated { parameters, sent, received, joined, newton_schulz } = self;
        (parameters, sent, received, joined, newton_schulz).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (parameters, sent, received, joined, newton_schulz) = Wire::take(from)?;
        Ok(Updated { parameters, sent, received, joined, newton_schulz })
    }
}

impl Wire for Exchange {
    fn put(self, to: &mut Packing) {
        let Exchange { gradients, momentum, updates, values } = self;
        (gradients, momentum, updates, values).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (gradients, momentum, updates, values) = Wire::take(from)?;
        Ok(Exchange { gradients, momentum, updates, values })
    }
}

impl Wire for Notes {
    fn put(self, to: &mut Packing) {
        let Notes { replica, stage, rank, experts, instructions, arrivals, .. } = self;
        let Notes { travels, copies, sums, phase, .. } = self;
        (replica, stage, rank, experts, instructions, arrivals).put(to);
        (travels, copies, sums, phase).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (replica, stage, rank, experts, instructions, arrivals) = Wire::take(from)?;
        let (travels, copies, sums, phase) = Wire::take(from)?;
        Ok(Notes {
            replica,
            stage,
            rank,
            experts,
            instructions,
            arrivals,
            travels,
            copies,
            sums,
            phase,
        })
    }
}

impl Wire for Part {
    fn put(self, to: &mut Packing) {
        (self as u8).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (number, all) = (u8::take(from)?, [Part::Reduce, Part::Update, Part::Gather]);
        all.into_iter().find(|part| *part as u8 == number).ok_or(Damaged)
    }
}

impl Wire for Piece {
    fn put(self, to: &mut Packing) {
        let Piece { master, state, gradient } = self;
        (Floats::Host(master), state, gradient.map(Floats::Host)).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let master = from.part()?.into_floats();
        let (state, is_audited) = Wire::take(from)?;
        let gradient = if is_audited { Some(from.part()?.into_floats()) } else { None };
        Ok(Piece { master, state, gradient })
    }
}

impl Wire for State {
    fn put(self, to: &mut Packing) {
        match self {
            State::None => 0_u8.put(to),
            State::Muon { momentum } => (1_u8, momentum).put(to),
            State::AdamW { first, second, step: [step] } => (2_u8, first, second, step).put(to),
        }
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(match u8::take(from)? {
            0 => State::None,
            1 => State::Muon { momentum: Wire::take(from)? },
            2 => {
                let (first, second, step) = Wire::take(from)?;
                State::AdamW { first, second, step: [step] }
            }
            _ => return Err(Damaged),
        })
    }
}
