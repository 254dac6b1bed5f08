//! Puts sends and receives into orders, cell by cell as PyTorch's engine does.
//!
//! An `I` with its `W` right behind it becomes a `B`. Then the ranks take turns, one cell each; a
//! rank whose next cell still waits for a token is passed over. What a cell makes for another rank
//! is sent right after it, and the receive goes to the end of the other's row as it then is. So
//! two ranks have their messages to each other in one common order, which is why PyTorch does it:
//! receives that block cannot cross. Plans do not need that, as each of their channels has a
//! buffer of its own; the order is for other engines.

use std::collections::BTreeSet;

use crate::{
    action::{Action, Work},
    bare::{Bare, Cell, Step, Token},
    check::{Hang, hang},
};

impl Bare {
    /// The orders with their messages; those that have messages stay as they are.
    ///
    /// # Errors
    ///
    /// [`Hang`] if the orders hang however many credits there are.
    pub fn with_messages(&self) -> Result<Bare, Hang> {
        hang(self, self.microbatches)?;
        if self.has_messages() {
            return Ok(self.clone());
        }
        let mut turns = Turns::new(self);
        let ranks = self.rows.len();
        while (0..ranks).fold(false, |moved, rank| turns.take(rank) | moved) {}
        let cell = |(column, step)| Cell { column, step };
        let row = |row: Vec<Step>| row.into_iter().enumerate().map(cell).collect();
        let rows = turns.rows.into_iter().map(row).collect();
        Ok(Bare { rows, places: self.places.clone(), microbatches: self.microbatches })
    }
}

/// How far the ranks have come.
struct Turns<'a> {
    bare: &'a Bare,
    /// Steps still to take, last first.
    left: Vec<Vec<Step>>,
    rows: Vec<Vec<Step>>,
    /// Tokens whose receive stands in a row.
    received: BTreeSet<Token>,
}

impl<'a> Turns<'a> {
    fn new(bare: &'a Bare) -> Self {
        let left = bare.rows.iter().map(|row| {
            let mut steps = joined(row.iter().map(|cell| cell.step));
            steps.reverse();
            steps
        });
        let left: Vec<Vec<Step>> = left.collect();
        let rows = vec![Vec::new(); left.len()];
        Turns { bare, left, rows, received: BTreeSet::new() }
    }

    /// Lets a rank do its next step; says whether it could.
    fn take(&mut self, rank: usize) -> bool {
        let can = |step: &Step| {
            let mut takes = step.actions().into_iter().flat_map(|action| self.bare.takes(action));
            takes.all(|token| self.received.contains(&token))
        };
        let Some(step) = self.left[rank].pop_if(|step| can(step)) else { return false };
        self.rows[rank].push(step);
        for token in step.actions().into_iter().filter_map(|action| self.bare.makes(action)) {
            self.rows[rank].push(Step::Send(token));
            self.rows[self.bare.places[token.to]].push(Step::Receive(token));
            self.received.insert(token);
        }
        true
    }
}

/// Steps with each `I` and the `W` right behind it as one `B`.
fn joined(steps: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut joined: Vec<Step> = Vec::new();
    for step in steps {
        match (joined.last_mut(), step) {
            (Some(Step::Work(input)), Step::Work(weight)) if follows(*input, weight) => {
                input.work = Work::Backward;
            }
            _ => joined.push(step),
        }
    }
    joined
}

fn follows(input: Action, weight: Action) -> bool {
    let wanted = Action { work: Work::BackwardWeight, ..input };
    input.work == Work::BackwardInput && weight == wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{csv, schedule::tests::golden};

    fn read(text: &str) -> Bare {
        Bare::new(csv::read(text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_made_is_sent_at_once_and_received_before_what_comes_later() {
        let bare = read("0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1");
        let expected = "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n\
            1RECV_F0,1F0,1RECV_F1,1I0,1SEND_B0,1F1,1I1,1SEND_B1,1W0,1W1\n";
        let full = bare.with_messages().unwrap();
        assert_eq!(csv::write(&full), expected);
        assert_eq!(Bare::new(full.rows().to_vec()), Ok(full.clone()));
        assert_eq!(full.with_messages().unwrap(), full);
    }

    #[test]
    fn orders_that_hang_have_no_messages() {
        let bare = read("0F0,(0F1;0B0)OVERLAP_F_B,0B1\n(1F0;1B0)OVERLAP_F_B,1F1,1B1");
        assert!(bare.with_messages().unwrap_err().to_string().contains("a pair starts when"));
    }

    /// Steps of a run in PyTorch's count: in each, every rank does one cell, sends and receives
    /// too, if it can; a rank that could not is asked once more after all others.
    fn rounds(bare: &Bare) -> usize {
        let mut left: Vec<Vec<Step>> = bare.rows().iter().map(|row| steps(row)).collect();
        let mut done: BTreeSet<String> = BTreeSet::new();
        let mut rounds = 0;
        while left.iter().any(|row| !row.is_empty()) {
            let mut late = Vec::new();
            for (rank, row) in left.iter_mut().enumerate().filter(|(_, row)| !row.is_empty()) {
                if !step(bare, row, &mut done) {
                    late.push(rank);
                }
            }
            for rank in late {
                step(bare, &mut left[rank], &mut done);
            }
            rounds += 1;
            assert!(rounds < 1 << 20, "it hangs");
        }
        rounds
    }

    fn steps(row: &[Cell]) -> Vec<Step> {
        row.iter().rev().map(|cell| cell.step).collect()
    }

    /// Does the next step of a row if what it needs is done.
    fn step(bare: &Bare, row: &mut Vec<Step>, done: &mut BTreeSet<String>) -> bool {
        let Some(&next) = row.last() else { return false };
        let actions = next.actions();
        let made = |token: Token| {
            let action = |work| Action { chunk: token.from, work, microbatch: token.microbatch };
            let works = [Work::Forward, Work::BackwardInput, Work::Backward];
            let mut makers = works.map(action).into_iter();
            makers.any(|it| bare.makes(it) == Some(token) && done.contains(&it.to_string()))
        };
        let can = match next {
            Step::Send(token) => made(token),
            Step::Receive(token) => done.contains(&Step::Send(token).to_string()),
            _ => actions.iter().all(|&action| {
                bare.takes(action)
                    .into_iter()
                    .all(|token| done.contains(&Step::Receive(token).to_string()))
            }),
        };
        if can {
            done.insert(next.to_string());
            done.extend(actions.iter().map(ToString::to_string));
            row.pop();
        }
        can
    }

    #[test]
    fn messages_and_their_steps_are_those_of_pytorchs_own_example() {
        let Some(folder) = golden("pytorch-test-artifacts") else { return };
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let full = read(&text("zb1p_2rank_2stagep_compute.csv")).with_messages().unwrap();
        let expected = read(&text("zb1p_2rank_2stagep_comms.csv"));
        assert_eq!(csv::write(&full), csv::write(&expected));
        assert_eq!(rounds(&full), 113);
    }

    #[test]
    fn messages_equal_those_of_pytorch_in_every_generated_file() {
        let Some(folder) = golden("pytorch-2.15-generated") else { return };
        let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        let (mut compared, mut counted) = (0, 0);
        for entry in index["entries"].as_array().unwrap() {
            let file = |key: &str| Some(folder.join(entry[key].as_str()?));
            let Some((compute, comms)) = file("compute_csv").zip(file("comms_csv")) else {
                continue;
            };
            if !comms.exists() {
                continue;
            }
            let [bare, expected] =
                [compute, comms].map(|path| read(&std::fs::read_to_string(path).unwrap()));
            let full = bare.with_messages().unwrap();
            assert_eq!(csv::write(&full), csv::write(&expected), "{entry}");
            compared += 1;
            if let Some(steps) = entry["torch_simulated_steps_with_comms"].as_u64() {
                assert_eq!(rounds(&full) as u64, steps, "{entry}");
                counted += 1;
            }
        }
        assert!(compared >= 64 && counted >= 64, "compared {compared}, counted {counted}");
    }
}
