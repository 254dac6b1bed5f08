//! Where activations leave for the host and come back.
//!
//! As Kimi K2 has it (arXiv:2507.20534, section 2.4.3): while a step of a stage computes, the
//! activations of the step before leave, and those of the next backward pass come. A microbatch
//! that would come back too soon stays.

use std::collections::BTreeMap;

use crate::{action::Work, bare::Step, plan::CopyStep};

/// A step of a microbatch in a chunk on its way to the host and back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Move {
    /// Which step of the way.
    pub step: CopyStep,
    /// Chunk.
    pub chunk: usize,
    /// Microbatch.
    pub microbatch: usize,
}

/// What moves around one step of a stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moves {
    /// Before it.
    pub before: Vec<Move>,
    /// After it.
    pub after: Vec<Move>,
}

/// Steps that a microbatch is away at least, or else it stays.
const AWAY: usize = 1;

/// Finds what moves around each step, if microbatches are fetched so many steps ahead.
pub fn moves(steps: &[Step], prefetch: usize) -> Vec<Moves> {
    let mut all = vec![Moves::default(); steps.len()];
    for ((chunk, microbatch), (forward, backward)) in stays(steps) {
        let (gone, back) = (forward + 1, backward.saturating_sub(prefetch));
        if back <= gone + AWAY {
            continue;
        }
        let at = |step| Move { step, chunk, microbatch };
        all[forward].after.push(at(CopyStep::Offload));
        all[gone].after.push(at(CopyStep::Offloaded));
        all[back].before.push(at(CopyStep::Fetch));
        all[backward].before.push(at(CopyStep::Fetched));
    }
    // What begins comes before what waits.
    let waits = |it: &Move| matches!(it.step, CopyStep::Offloaded | CopyStep::Fetched);
    for Moves { before, after } in &mut all {
        before.sort_by_key(waits);
        after.sort_by_key(waits);
    }
    all
}

/// Of each chunk and microbatch the steps of its forward and its backward pass.
fn stays(steps: &[Step]) -> BTreeMap<(usize, usize), (usize, usize)> {
    let (mut forward, mut stays) = (BTreeMap::new(), BTreeMap::new());
    for (at, action) in steps
        .iter()
        .enumerate()
        .flat_map(|(at, step)| step.actions().into_iter().map(move |a| (at, a)))
    {
        let key = (action.chunk, action.microbatch);
        match action.work {
            Work::Forward => drop(forward.insert(key, at)),
            Work::Backward | Work::BackwardInput => {
                if let Some(&from) = forward.get(&key) {
                    stays.insert(key, (from, at));
                }
            }
            Work::BackwardWeight => {}
        }
    }
    stays
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{passes::overlap, text::read_orders};

    fn words(order: &str, prefetch: usize) -> String {
        let steps = overlap::steps(&read_orders(order).unwrap()[0], false);
        let moves = moves(&steps, prefetch);
        let word = |it: &Move| format!("{:?}{}", it.step, it.microbatch);
        let words = steps.iter().zip(moves).flat_map(|(step, moves)| {
            let before = moves.before.iter().map(word).collect::<Vec<_>>();
            let after = moves.after.iter().map(word).collect::<Vec<_>>();
            [before, vec![step.to_string()], after].concat()
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_microbatch_before_leaves_while_the_next_one_comes() {
        let order = "0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3";
        let expected = "0F0 Offload0 0F1 Offload1 Offloaded0 0F2 Offload2 Offloaded1 Fetch0 0F3 \
                        Offload3 Offloaded2 Fetch1 Fetched0 0B0 Offloaded3 Fetch2 Fetched1 0B1 \
                        Fetch3 Fetched2 0B2 Fetched3 0B3";
        assert_eq!(words(order, 1), expected);
    }

    #[test]
    fn what_is_needed_soon_stays() {
        assert_eq!(words("0F0,0B0,0F1,0B1", 1), "0F0 0B0 0F1 0B1");
        let order = "0F0,0F1,0F2,0F3,0B3,0B2,0B1,0B0";
        let expected = "0F0 Offload0 0F1 Offload1 Offloaded0 0F2 Offloaded1 0F3 0B3 Fetch1 0B2 \
                        Fetch0 Fetched1 0B1 Fetched0 0B0";
        assert_eq!(words(order, 1), expected);
    }
}
