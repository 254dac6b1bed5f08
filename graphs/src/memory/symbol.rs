//! What stands for a tensor on paper: an identity and a size.

use std::{cell::Cell, rc::Rc};

use crate::flight::{Amount, Held};

/// A tensor without elements.
#[derive(Clone, Debug)]
pub(crate) struct Symbol {
    identity: usize,
    amount: Amount,
    maker: Maker,
}

/// Makes symbols, each of its own identity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Maker(Rc<Cell<usize>>);

impl Maker {
    /// A new symbol.
    pub fn make(&self, amount: Amount) -> Symbol {
        self.0.set(self.0.get() + 1);
        Symbol { identity: self.0.get(), amount, maker: self.clone() }
    }
}

impl Held for Symbol {
    fn place(&self) -> (usize, usize) {
        (self.identity, 0)
    }

    fn amount(&self) -> Amount {
        self.amount
    }

    fn empty() -> Self {
        Maker::default().make(Amount::default())
    }

    fn plus(&self, _other: &Self) -> Self {
        self.maker.make(self.amount)
    }
}
