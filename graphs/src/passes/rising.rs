//! Has each chunk add its weight gradients in rising order of microbatches.
//!
//! Sums of floating-point numbers depend on their order, and the bits of a step shall not depend on
//! its schedule. So a weight gradient waits until those of all earlier microbatches of its chunk
//! are written; the input's gradient does not wait. A schedule whose backward passes rise keeps
//! its order; for one that goes through them backwards, looped breadth-first, the weight gradients
//! of a chunk gather at its last backward pass, which costs their inputs' memory until then.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::{Action, Work};

/// Puts off weight gradients that come too early.
pub fn rising(order: &[Action]) -> Vec<Action> {
    let mut rising = Vec::with_capacity(order.len());
    let mut chunks: BTreeMap<usize, Waiting> = BTreeMap::new();
    for &action in order {
        let waiting = chunks.entry(action.chunk).or_default();
        match action.work {
            Work::Forward | Work::BackwardInput => rising.push(action),
            _ if action.microbatch == waiting.next => {
                rising.push(action);
                waiting.next += 1;
                waiting.release(action.chunk, &mut rising);
            }
            Work::BackwardWeight => {
                waiting.late.insert(action.microbatch);
            }
            Work::Backward => {
                rising.push(Action { work: Work::BackwardInput, ..action });
                waiting.late.insert(action.microbatch);
            }
        }
    }
    rising
}

/// Weight gradients of one chunk.
#[derive(Default)]
struct Waiting {
    /// Microbatch whose turn it is.
    next: usize,
    /// Later microbatches that could be done already.
    late: BTreeSet<usize>,
}

impl Waiting {
    /// Writes those whose turn has come.
    fn release(&mut self, chunk: usize, order: &mut Vec<Action>) {
        while self.late.remove(&self.next) {
            order.push(Action { chunk, work: Work::BackwardWeight, microbatch: self.next });
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{orders, read_orders};

    fn check(before: &str, expected: &str) {
        let order = rising(&read_orders(before).unwrap()[0]);
        assert_eq!(orders(&[order]).trim_end(), expected);
    }

    #[test]
    fn backward_passes_in_order_stay_as_they_are() {
        for order in ["0F0,0F1,0B0,0B1", "0F0,2F0,2I0,0I0,2W0,0W0", "0F0,0F1,0I0,0I1,0W0,0W1"] {
            check(order, order);
        }
    }

    #[test]
    fn weight_gradients_of_reversed_backward_passes_wait_for_the_first_microbatch() {
        check("0F0,0F1,0F2,0B2,0B1,0B0", "0F0,0F1,0F2,0I2,0I1,0B0,0W1,0W2");
        check("0F0,0F1,2F0,2F1,2B1,2B0,0B1,0B0", "0F0,0F1,2F0,2F1,2I1,2B0,2W1,0I1,0B0,0W1");
        check("0F0,0F1,0I1,0W1,0I0,0W0", "0F0,0F1,0I1,0I0,0W0,0W1");
    }
}
