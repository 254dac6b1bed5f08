//! Pairs forward passes with backward passes of other microbatches, so that what one of them sends
//! travels while the other one computes.
//!
//! Kimi K2 (arXiv:2507.20534, section 2.4.2) runs one more forward pass in the warm-up of
//! interleaved 1F1B, so that the forward and the backward pass of a step of the steady phase belong
//! to different microbatches. DeepSeek-V3 (arXiv:2412.19437, section 3.2.1) pairs them likewise.

use crate::{
    action::{Action, Work},
    bare::Step,
};

/// The order as steps; if asked, a forward pass and the backward pass right behind it become one,
/// unless they are of the same microbatch.
///
/// A weight gradient right behind its input gradient joins it: within a pair each segment's follows
/// its input gradient anyway.
pub fn steps(order: &[Action], pairs: bool) -> Vec<Step> {
    let mut steps = Vec::with_capacity(order.len());
    let mut rest = order;
    while let [first, ..] = rest {
        let (step, taken) = match rest {
            [forward, backward, ..] if pairs && can_pair(*forward, *backward) => {
                let (backward, taken) = joined(&rest[1..]);
                (Step::Pair(*forward, backward), 1 + taken)
            }
            _ => (Step::Work(*first), 1),
        };
        steps.push(step);
        rest = &rest[taken..];
    }
    steps
}

fn can_pair(forward: Action, backward: Action) -> bool {
    let is_backward = matches!(backward.work, Work::Backward | Work::BackwardInput);
    forward.work == Work::Forward && is_backward && forward.microbatch != backward.microbatch
}

/// The backward pass that an order begins with, and how many actions that takes.
fn joined(order: &[Action]) -> (Action, usize) {
    let first = order[0];
    let weight = Action { work: Work::BackwardWeight, ..first };
    let both = first.work == Work::BackwardInput && order.get(1) == Some(&weight);
    if both { (Action { work: Work::Backward, ..first }, 2) } else { (first, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::read_orders;

    fn check(order: &str, expected: &str) {
        let steps = steps(&read_orders(order).unwrap()[0], true);
        let words: Vec<String> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_forward_pass_pairs_with_the_backward_pass_behind_it() {
        check("0F0,0F1,0B0,0F2,0B1,0B2", "0F0 (0F1;0B0)OVERLAP_F_B (0F2;0B1)OVERLAP_F_B 0B2");
        check("0F0,0F1,0I0,0W0,0I1,0W1", "0F0 (0F1;0B0)OVERLAP_F_B 0I1 0W1");
        check("0F0,0F1,0I0,0F2,0W0,0I1", "0F0 (0F1;0I0)OVERLAP_F_B 0F2 0W0 0I1");
    }

    #[test]
    fn passes_of_one_microbatch_stay_apart() {
        check("1F0,1B0,1F1,1B1", "1F0 1B0 1F1 1B1");
    }
}
