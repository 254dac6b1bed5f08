//! Counts the buffers that a flight holds, each once, by class, and how high it ever stood.

use std::{
    collections::BTreeMap,
    ops::{AddAssign, SubAssign},
};

use crate::{edge::Class, flight::Buffer};

/// Bytes, as far as the number of routed rows is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amount {
    /// Bytes whatever the rows.
    pub fixed: u64,
    /// Bytes for each row.
    pub per_row: u64,
}

impl Amount {
    /// Bytes for so many rows.
    pub fn at(self, rows: u64) -> u64 {
        self.fixed + self.per_row * rows
    }

    /// Whether this is at least the other, for any number of rows.
    pub fn covers(self, other: Amount) -> bool {
        self.fixed >= other.fixed && self.per_row >= other.per_row
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        self.fixed += other.fixed;
        self.per_row += other.per_row;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Amount) {
        self.fixed -= other.fixed;
        self.per_row -= other.per_row;
    }
}

/// What is alive at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Live {
    by_class: [Amount; Class::COUNT],
    total: Amount,
}

impl Live {
    /// Bytes of a class.
    pub fn of(&self, class: Class) -> Amount {
        self.by_class[class as usize]
    }

    /// Bytes of all classes.
    pub fn total(&self) -> Amount {
        self.total
    }

    /// The classes that differ in a later level: before, after.
    pub fn changes(&self, after: &Live) -> Vec<(Class, Amount, Amount)> {
        let both = Class::ALL.map(|class| (class, self.of(class), after.of(class)));
        both.into_iter().filter(|(_, before, after)| before != after).collect()
    }

    pub(super) fn add(&mut self, class: Class, amount: Amount) {
        self.by_class[class as usize] += amount;
        self.total += amount;
    }

    pub(super) fn subtract(&mut self, class: Class, amount: Amount) {
        self.by_class[class as usize] -= amount;
        self.total -= amount;
    }
}

/// The buffers held, and the most there was.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Holders and class by place; no class for what is counted elsewhere.
    entries: BTreeMap<(usize, usize), (u32, Option<Class>)>,
    live: Live,
    /// The highest levels since [`Ledger::restart`], none covered by another, oldest first.
    highs: Vec<Live>,
}

impl Ledger {
    /// What is alive now.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The most that was alive since the last restart: one level where rows play no part.
    pub fn highs(&self) -> &[Live] {
        &self.highs
    }

    /// Forgets how high it stood.
    pub fn restart(&mut self) {
        self.highs.clear();
        self.highs.push(self.live.clone());
    }

    /// One holder more; a buffer keeps the class it came with.
    pub fn hold<T: Buffer>(&mut self, tensor: &T, class: Option<Class>) {
        let amount = tensor.amount();
        if amount == Amount::default() {
            return;
        }
        let (holders, _) = self.entries.entry(tensor.place()).or_insert((0, class));
        *holders += 1;
        if let (1, Some(class)) = (*holders, class) {
            self.live.add(class, amount);
            self.raise();
        }
    }

    /// One holder less; the last one frees the buffer.
    pub fn release<T: Buffer>(&mut self, tensor: &T) {
        // What has no byte has no place of its own either.
        if tensor.amount() == Amount::default() {
            return;
        }
        let Some((holders, class)) = self.entries.get_mut(&tensor.place()) else { return };
        *holders -= 1;
        let (left, class) = (*holders, *class);
        if left == 0 {
            self.entries.remove(&tensor.place());
            if let Some(class) = class {
                self.live.subtract(class, tensor.amount());
            }
        }
    }

    /// Counts a buffer that a copy is going to fill.
    pub(super) fn reserve(&mut self, class: Class, amount: Amount) {
        self.live.add(class, amount);
        self.raise();
    }

    /// Before a filled buffer is held: it is not counted twice.
    pub(super) fn fill(&mut self, class: Class, amount: Amount) {
        self.live.subtract(class, amount);
    }

    fn raise(&mut self) {
        let total = self.live.total;
        if !self.highs.iter().any(|high| high.total.covers(total)) {
            self.highs.retain(|high| !total.covers(high.total));
            self.highs.push(self.live.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::symbol::{Maker, Symbol};

    fn bytes(fixed: u64, per_row: u64) -> Amount {
        Amount { fixed, per_row }
    }

    #[test]
    fn a_buffer_counts_once_until_its_last_holder_lets_go() {
        let (maker, mut ledger) = (Maker::new(ops::DType::F32), Ledger::default());
        let shared = maker.make(bytes(8, 0));
        ledger.hold(&shared, Some(Class::Residual));
        ledger.hold(&shared.clone(), Some(Class::NormOutput));
        ledger.release(&shared);
        assert_eq!(ledger.live().of(Class::Residual), bytes(8, 0));
        assert_eq!(ledger.live().total(), bytes(8, 0));
        ledger.release(&shared);
        assert_eq!(ledger.live(), &Live::default());
    }

    #[test]
    fn what_has_no_byte_or_is_counted_elsewhere_changes_nothing() {
        let (maker, mut ledger) = (Maker::new(ops::DType::F32), Ledger::default());
        let (first, unit) = (maker.make(bytes(8, 0)), maker.make(bytes(5, 0)));
        ledger.hold(&first, Some(Class::Residual));
        // An empty tensor has the first place of a maker of its own.
        let empty = <Symbol as crate::flight::Held>::empty();
        assert_eq!(empty.place(), first.place());
        ledger.release(&empty);
        ledger.hold(&unit, None);
        ledger.hold(&unit, Some(Class::Statistics));
        assert_eq!(ledger.live().total(), bytes(8, 0));
    }

    #[test]
    fn highs_are_kept_where_rows_may_decide_which_is_higher() {
        let (maker, mut ledger) = (Maker::new(ops::DType::F32), Ledger::default());
        let (fixed, rows) = (maker.make(bytes(10, 0)), maker.make(bytes(0, 1)));
        ledger.hold(&fixed, Some(Class::Residual));
        ledger.release(&fixed);
        ledger.hold(&rows, Some(Class::MoeUpInput));
        let totals = ledger.highs().iter().map(Live::total).collect::<Vec<_>>();
        assert_eq!(totals, [bytes(10, 0), bytes(0, 1)]);
    }
}
