//! What stands for a tensor on paper: an identity and a size.

use std::{cell::Cell, rc::Rc};

use ops::{DType, stored_bytes};

use crate::flight::{Amount, Buffer, Held};

/// A tensor without elements.
#[derive(Clone, Debug)]
pub(crate) struct Symbol {
    identity: usize,
    amount: Amount,
    maker: Maker,
}

/// Makes symbols, each of its own identity.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    last: Rc<Cell<usize>>,
    /// Format of activations.
    precision: DType,
}

impl Maker {
    /// Makes symbols of activations in a format.
    pub fn new(precision: DType) -> Self {
        Maker { last: Rc::default(), precision }
    }

    /// A new symbol.
    pub fn make(&self, amount: Amount) -> Symbol {
        self.last.set(self.last.get() + 1);
        Symbol { identity: self.last.get(), amount, maker: self.clone() }
    }
}

/// A symbol of what is stored, and of what it comes back to.
#[derive(Clone, Debug)]
pub(crate) struct Small {
    stored: Symbol,
    plain: Amount,
}

impl Buffer for Small {
    fn place(&self) -> (usize, usize) {
        self.stored.place()
    }

    fn amount(&self) -> Amount {
        self.stored.amount
    }
}

impl Buffer for Symbol {
    fn place(&self) -> (usize, usize) {
        (self.identity, 0)
    }

    fn amount(&self) -> Amount {
        self.amount
    }
}

impl Held for Symbol {
    type Stored = Small;

    fn empty() -> Self {
        Maker::new(DType::F32).make(Amount::default())
    }

    fn plus(&self, _other: &Self) -> Self {
        self.maker.make(self.amount)
    }

    fn store(&self, width: usize) -> Small {
        let row = (width * self.maker.precision.size()) as u64;
        let small = |bytes: u64| stored_bytes((bytes / row) as usize, width);
        let Amount { fixed, per_row } = self.amount;
        let amount = Amount { fixed: small(fixed), per_row: small(per_row) };
        Small { stored: self.maker.make(amount), plain: self.amount }
    }

    fn load(small: &Small) -> Self {
        small.stored.maker.make(small.plain)
    }
}
