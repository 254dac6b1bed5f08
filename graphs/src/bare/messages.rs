//! The law of sends and receives that are written out: each token is sent once, after it is made,
//! and received once, before it is used, each where its chunk lives.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    bare::{Bare, Cell, Step, Token},
    check::OrderError,
};

/// All mistakes, by row and cell; last, what is sent or received nowhere.
pub(super) fn check(bare: &Bare) -> Vec<OrderError> {
    let mut post = Post::default();
    for (stage, row) in bare.rows().iter().enumerate() {
        post.row(bare, stage, row);
    }
    post.unmatched()
}

/// What has been sent and received so far, and at which stage and cell.
#[derive(Default)]
struct Post {
    sent: BTreeMap<Token, (usize, usize)>,
    received: BTreeMap<Token, (usize, usize)>,
    errors: Vec<OrderError>,
}

/// What a rank has at hand.
#[derive(Default)]
struct Hand {
    received: BTreeSet<Token>,
    made: BTreeSet<Token>,
}

impl Post {
    fn row(&mut self, bare: &Bare, stage: usize, row: &[Cell]) {
        let mut hand = Hand::default();
        for &Cell { column: cell, step } in row {
            if let Some(wrong) = self.wrong(bare, (stage, cell), step, &hand) {
                self.errors.push(error((stage, cell), step, wrong));
            }
            if let Step::Receive(token) = step {
                hand.received.insert(token);
            }
            let made = step.actions().into_iter().flat_map(|action| bare.makes(action));
            hand.made.extend(made);
        }
    }

    /// What is wrong with a step, which is noted.
    fn wrong(
        &mut self,
        bare: &Bare,
        place: (usize, usize),
        step: Step,
        hand: &Hand,
    ) -> Option<&'static str> {
        let lives = |chunk: usize| bare.places().get(chunk) == Some(&place.0);
        match step {
            Step::Send(it) if !lives(it.from) => Some("is not this stage's to send"),
            Step::Send(it) if !hand.made.contains(&it) => Some("comes before what it sends"),
            Step::Send(it) => self.sent.insert(it, place).map(|_| "stands twice"),
            Step::Receive(it) if !lives(it.to) => Some("is not this stage's to receive"),
            Step::Receive(it) => self.received.insert(it, place).map(|_| "stands twice"),
            Step::Work(_) | Step::Pair(..) => {
                let mut taken = step.actions().into_iter().flat_map(|action| bare.takes(action));
                let lacks = taken.any(|token| !hand.received.contains(&token));
                lacks.then_some("comes before what it needs is received")
            }
        }
    }

    fn unmatched(mut self) -> Vec<OrderError> {
        let lost = self.sent.iter().filter(|(token, _)| !self.received.contains_key(token));
        let lost = lost.map(|(&it, &place)| error(place, Step::Send(it), "is received nowhere"));
        let never = self.received.iter().filter(|(token, _)| !self.sent.contains_key(token));
        let never = never.map(|(&it, &place)| error(place, Step::Receive(it), "is sent nowhere"));
        self.errors.extend(lost.chain(never));
        self.errors
    }
}

fn error((stage, cell): (usize, usize), step: Step, wrong: &'static str) -> OrderError {
    OrderError::Message { stage, cell, step: step.to_string(), wrong }
}
