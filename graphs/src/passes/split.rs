//! Splits the backward pass, so that the stage before need not wait for weight gradients.
//!
//! Qi et al., arXiv:2401.10241, split it; Kimi K2 (arXiv:2507.20534, section 2.4.2) computes the
//! weight gradients while the input's gradient travels.

use std::collections::VecDeque;

use crate::{
    action::{Action, Work},
    bare::Step,
    spec::WeightGrad,
};

/// Splits each `B` of an order as asked.
///
/// Late weight gradients keep the order of their `I`s, so that each chunk still adds them in
/// rising order of microbatches.
pub fn split(order: &[Action], when: WeightGrad) -> Vec<Action> {
    let late = match when {
        WeightGrad::Joined => return order.to_vec(),
        WeightGrad::Early => 0,
        WeightGrad::Late(actions) => actions,
    };
    let steps = put_off(order.iter().copied().map(Step::Work).collect(), late);
    steps.iter().flat_map(Step::actions).collect()
}

/// Splits each `B`, in pairs too, each weight gradient waiting for so many more input gradients.
pub(crate) fn put_off(steps: Vec<Step>, late: usize) -> Vec<Step> {
    let (mut split, mut waiting) = (Vec::with_capacity(2 * steps.len()), VecDeque::new());
    for step in steps {
        let (step, weight) = without_weight(step);
        split.push(step);
        waiting.extend(weight.map(Step::Work));
        if weight.is_some() && waiting.len() > late {
            split.extend(waiting.pop_front());
        }
    }
    split.extend(waiting);
    split
}

/// A step with `I` in place of `B`, and the `W` that was in it.
fn without_weight(step: Step) -> (Step, Option<Action>) {
    let input = |it: Action| Action { work: Work::BackwardInput, ..it };
    let weight = |it: Action| Some(Action { work: Work::BackwardWeight, ..it });
    match step {
        Step::Work(it) if it.work == Work::Backward => (Step::Work(input(it)), weight(it)),
        Step::Pair(forward, it) if it.work == Work::Backward => {
            (Step::Pair(forward, input(it)), weight(it))
        }
        _ => (step, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{orders, read_orders};

    fn check(when: WeightGrad, expected: &str) {
        let before = read_orders("0F0,0F1,0B0,0B1,0B2").unwrap();
        assert_eq!(orders(&[split(&before[0], when)]).trim_end(), expected);
    }

    #[test]
    fn weight_gradients_wait_for_so_many_input_gradients() {
        check(WeightGrad::Joined, "0F0,0F1,0B0,0B1,0B2");
        check(WeightGrad::Early, "0F0,0F1,0I0,0W0,0I1,0W1,0I2,0W2");
        check(WeightGrad::Late(1), "0F0,0F1,0I0,0I1,0W0,0I2,0W1,0W2");
        check(WeightGrad::Late(9), "0F0,0F1,0I0,0I1,0I2,0W0,0W1,0W2");
    }
}
