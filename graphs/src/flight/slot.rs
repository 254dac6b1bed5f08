//! One item of a flight between the passes: on the device or on the host, plain or in FP8.

use super::{Amount, Buffer, Held, Ledger};
use crate::edge::Class;

/// An item as it is held.
#[derive(Clone, Debug)]
pub enum Lump<T: Held> {
    /// As it was made.
    Plain(T),
    /// In FP8.
    Fp8(T::Stored),
}

impl<T: Held> Lump<T> {
    /// Its bytes.
    pub fn amount(&self) -> Amount {
        match self {
            Lump::Plain(value) => value.amount(),
            Lump::Fp8(stored) => stored.amount(),
        }
    }

    /// One holder of it more.
    pub(super) fn hold(&self, ledger: &mut Ledger, class: Option<Class>) {
        match self {
            Lump::Plain(value) => ledger.hold(value, class),
            Lump::Fp8(stored) => ledger.hold(stored, class),
        }
    }

    /// One holder of it less.
    pub(super) fn release(&self, ledger: &mut Ledger) {
        match self {
            Lump::Plain(value) => ledger.release(value),
            Lump::Fp8(stored) => ledger.release(stored),
        }
    }
}

/// An item, where it is, and who still reads it.
#[derive(Clone, Debug)]
pub struct Slot<T: Held> {
    pub(super) lump: Lump<T>,
    /// Readers still to come.
    pub(super) uses: usize,
    /// Whether it is on the host.
    pub(super) is_away: bool,
}
