//! Pairs forward passes with backward passes of other microbatches, so that what one of them sends
//! travels while the other one computes.
//!
//! Kimi K2 (arXiv:2507.20534, section 2.4.2) runs one more forward pass in the warm-up of
//! interleaved 1F1B, so that the forward and the backward pass of a step of the steady phase belong
//! to different microbatches. DeepSeek-V3 (arXiv:2412.19437, section 3.2.1) pairs them likewise.

use std::collections::{BTreeSet, VecDeque};

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

/// Takes pairs apart whose backward pass waits, by way of other stages, for what the forward pass
/// beside it makes; `chunks` is the number of chunks of the model.
///
/// There is such a pair where the warm-up of interleaved 1F1B takes all forward passes of a stage:
/// the stages behind it begin their backward passes only after the last of them. The steps of all
/// stages are done on paper, and whenever nobody can go on, the first pair whose forward pass alone
/// could be done is taken apart.
pub fn independent(rows: Vec<Vec<Step>>, chunks: usize) -> Vec<Vec<Step>> {
    let mut paper = Paper { chunks, done: BTreeSet::new() };
    let mut left: Vec<VecDeque<Step>> = rows.into_iter().map(VecDeque::from).collect();
    let mut rows = vec![Vec::new(); left.len()];
    loop {
        let mut moves = false;
        for (left, row) in left.iter_mut().zip(&mut rows) {
            while let Some(step) = left.pop_front_if(|step| paper.is_ready(step)) {
                paper.done.extend(step.actions().into_iter().map(made));
                row.push(step);
                moves = true;
            }
        }
        let parts = |step: &Step| matches!(step, Step::Pair(f, _) if paper.can(*f));
        let stuck = left.iter_mut().find(|left| left.front().is_some_and(parts));
        match (moves, stuck) {
            (true, _) => {}
            (false, Some(left)) => take_apart(left),
            (false, None) => break,
        }
    }
    // What hangs anyway is left for the proof to tell.
    rows.into_iter().zip(left).map(|(row, left)| row.into_iter().chain(left).collect()).collect()
}

fn take_apart(left: &mut VecDeque<Step>) {
    if let Some(Step::Pair(forward, backward)) = left.pop_front() {
        left.push_front(Step::Work(backward));
        left.push_front(Step::Work(forward));
    }
}

/// What has been done so far, on paper.
struct Paper {
    chunks: usize,
    /// Forward and backward passes, by chunk and microbatch.
    done: BTreeSet<(bool, usize, usize)>,
}

/// Whether it is backward, chunk and microbatch.
fn made(action: Action) -> (bool, usize, usize) {
    (action.work != Work::Forward, action.chunk, action.microbatch)
}

impl Paper {
    fn is_ready(&self, step: &Step) -> bool {
        step.actions().into_iter().all(|action| self.can(action))
    }

    fn can(&self, Action { chunk, work, microbatch }: Action) -> bool {
        let forward = |chunk| self.done.contains(&(false, chunk, microbatch));
        match work {
            Work::Forward => chunk == 0 || forward(chunk - 1),
            Work::Backward | Work::BackwardInput => {
                let last = chunk + 1 == self.chunks;
                forward(chunk) && (last || self.done.contains(&(true, chunk + 1, microbatch)))
            }
            Work::BackwardWeight => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        schedule::{Interleaved, Pipeline, Schedule},
        text::read_orders,
    };

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

    /// How many pairs each stage keeps of those that stand side by side.
    fn pairs(stages: usize, microbatches: usize) -> Vec<(usize, usize)> {
        let pipeline = Pipeline { stages, virtual_stages: 2, microbatches };
        let rule = Interleaved { extra_warmup: 1, ..Interleaved::PLAIN };
        let orders = Schedule::Interleaved1F1B(rule).orders(pipeline);
        let rows: Vec<Vec<Step>> = orders.iter().map(|order| steps(order, true)).collect();
        let count = |row: &Vec<Step>| row.iter().filter(|it| matches!(it, Step::Pair(..))).count();
        let kept = independent(rows.clone(), 2 * stages);
        let actions = |row: &Vec<Step>| row.iter().flat_map(Step::actions).collect::<Vec<_>>();
        assert!(rows.iter().map(actions).eq(kept.iter().map(actions)), "the order stays");
        rows.iter().map(count).zip(kept.iter().map(count)).collect()
    }

    #[test]
    fn where_the_warm_up_takes_all_forward_passes_nothing_pairs_with_the_first_backward_pass() {
        // Warm-ups of 11, 9, 7 and 5 passes of 8; of 16 none takes all.
        assert_eq!(pairs(4, 4), [(1, 0), (1, 0), (1, 1), (3, 3)]);
        assert_eq!(pairs(4, 8), [(5, 5), (7, 7), (9, 9), (11, 11)]);
    }

    #[test]
    fn passes_of_one_microbatch_stay_apart() {
        check("1F0,1B0,1F1,1B1", "1F0 1B0 1F1 1B1");
    }
}
