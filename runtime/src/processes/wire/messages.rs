//! Messages between compute actors on the wire.

use super::{Damaged, Packing, Unpacking, Wire};
use crate::{message::Message, verdict::Verdict};

impl Wire for Message {
    /// # Panics
    ///
    /// If it is a copy that is done: the copy lanes of a rank are where its actors are.
    fn put(self, to: &mut Packing) {
        match self {
            Message::Record { since } => (0_u8, since).put(to),
            Message::Step => 1_u8.put(to),
            Message::Unit { microbatch, tokens, targets } => {
                (2_u8, microbatch, tokens, targets).put(to);
            }
            Message::Cargo { channel, microbatch, peer, tensors, travelled } => {
                (3_u8, channel, microbatch, peer, tensors, travelled).put(to);
            }
            Message::Credit { channel, peer } => (4_u8, channel, peer).put(to),
            Message::Gradient { parameter, slice, from, sum, travelled } => {
                (5_u8, parameter, slice, from, sum, travelled).put(to);
            }
            Message::Verdict(verdict) => (6_u8, verdict).put(to),
            Message::Momentum { parameter, from, direction } => {
                (7_u8, parameter, from, direction).put(to);
            }
            Message::Update { parameter, rows } => (8_u8, parameter, rows).put(to),
            Message::Weight { parameter, from, value } => (9_u8, parameter, from, value).put(to),
            Message::Snapshot => 10_u8.put(to),
            Message::Copied { .. } => unreachable!("copies stay in the process of their rank"),
        }
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(match u8::take(from)? {
            0 => Message::Record { since: Wire::take(from)? },
            1 => Message::Step,
            2 => {
                let (microbatch, tokens, targets) = Wire::take(from)?;
                Message::Unit { microbatch, tokens, targets }
            }
            3 => {
                let (channel, microbatch, peer, tensors, travelled) = Wire::take(from)?;
                Message::Cargo { channel, microbatch, peer, tensors, travelled }
            }
            4 => {
                let (channel, peer) = Wire::take(from)?;
                Message::Credit { channel, peer }
            }
            5 => {
                let (parameter, slice, sender, sum, travelled) = Wire::take(from)?;
                Message::Gradient { parameter, slice, from: sender, sum, travelled }
            }
            6 => Message::Verdict(Wire::take(from)?),
            7 => {
                let (parameter, sender, direction) = Wire::take(from)?;
                Message::Momentum { parameter, from: sender, direction }
            }
            8 => {
                let (parameter, rows) = Wire::take(from)?;
                Message::Update { parameter, rows }
            }
            9 => {
                let (parameter, sender, value) = Wire::take(from)?;
                Message::Weight { parameter, from: sender, value }
            }
            10 => Message::Snapshot,
            _ => return Err(Damaged),
        })
    }
}

impl Wire for Verdict {
    fn put(self, to: &mut Packing) {
        let Verdict { lr, scale, max_logits, loads } = self;
        (lr, scale, max_logits, loads).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (lr, scale, max_logits, loads) = Wire::take(from)?;
        Ok(Verdict { lr, scale, max_logits, loads })
    }
}
