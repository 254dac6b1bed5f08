//! Orders without a model: what each rank computes and when, and nothing of what with.
//!
//! Files of other programs are read as such, and [`crate::check::hang`] and
//! [`mod@crate::simulate`] work on them. Each chunk lives where it is computed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    action::{Action, Work},
    check::{self, OrderError},
    schedule::{Pipeline, Schedule},
};

mod comms;
mod messages;

/// What crosses from one chunk to the next, or back, for one microbatch.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Token {
    /// Chunk that makes it.
    pub from: usize,
    /// Chunk that needs it: one further for activations, one back for gradients.
    pub to: usize,
    /// Microbatch it belongs to.
    pub microbatch: usize,
}

impl Token {
    fn letter(self) -> char {
        if self.from < self.to { 'F' } else { 'B' }
    }
}

/// What stands in a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Work on one microbatch.
    Work(Action),
    /// A forward and a backward pass as one: it starts when both can.
    Pair(Action, Action),
    /// A token leaves.
    Send(Token),
    /// A token is waited for.
    Receive(Token),
}

impl Step {
    /// Whether it is backward work and nothing else.
    pub fn is_backward(&self) -> bool {
        matches!(self, Step::Work(action) if action.work != Work::Forward)
    }

    /// The actions of the cell, in order.
    pub fn actions(&self) -> Vec<Action> {
        match *self {
            Step::Work(action) => vec![action],
            Step::Pair(forward, backward) => vec![forward, backward],
            Step::Send(_) | Step::Receive(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Work(action) => write!(f, "{action}"),
            Step::Pair(forward, backward) => write!(f, "({forward};{backward})OVERLAP_F_B"),
            Step::Send(it) => write!(f, "{}SEND_{}{}", it.from, it.letter(), it.microbatch),
            Step::Receive(it) => write!(f, "{}RECV_{}{}", it.to, it.letter(), it.microbatch),
        }
    }
}

/// A step and where it stands in its row, idle cells counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cell {
    /// Column, counted from 0.
    pub column: usize,
    /// What is done.
    pub step: Step,
}

/// Lawful orders: one row for each rank.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bare {
    rows: Vec<Vec<Cell>>,
    places: Vec<usize>,
    microbatches: usize,
}

impl Bare {
    /// Checks rows of cells.
    ///
    /// Rows without any backward pass are an excerpt, from which work may be missing. Where some
    /// sends and receives stand there, all must.
    ///
    /// # Errors
    ///
    /// All the [`OrderError`]s there are; stages are rows, and cells are columns.
    pub fn new(rows: Vec<Vec<Cell>>) -> Result<Self, Vec<OrderError>> {
        let (places, microbatches) = extent(&rows).map_err(|error| vec![error])?;
        let order = |row: &Vec<Cell>| row.iter().flat_map(|cell| cell.step.actions()).collect();
        let orders: Vec<Vec<Action>> = rows.iter().map(order).collect();
        let mut errors = check::orders(&places, microbatches, &orders).err().unwrap_or_default();
        let trains = orders.iter().flatten().any(|action| action.work != Work::Forward);
        errors.retain(|error| trains || !matches!(error, OrderError::Missing { .. }));
        errors.iter_mut().for_each(|error| error.move_to(&rows));
        let bare = Bare { rows, places, microbatches };
        if bare.has_messages() {
            errors.extend(messages::check(&bare));
        }
        if errors.is_empty() { Ok(bare) } else { Err(errors) }
    }

    /// Checks the steps that a schedule gives each stage.
    ///
    /// # Errors
    ///
    /// All the [`OrderError`]s there are.
    pub fn of(schedule: &Schedule, pipeline: Pipeline) -> Result<Self, Vec<OrderError>> {
        let row = |steps: Vec<Step>| {
            let steps = steps.into_iter().enumerate();
            steps.map(|(column, step)| Cell { column, step }).collect()
        };
        Self::new(schedule.steps(pipeline).into_iter().map(row).collect())
    }

    /// The cells of each rank.
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// The rank of each chunk.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// Microbatches of a step.
    pub fn microbatches(&self) -> usize {
        self.microbatches
    }

    /// Whether sends and receives stand in the rows.
    pub fn has_messages(&self) -> bool {
        let is_message = |cell: &Cell| matches!(cell.step, Step::Send(_) | Step::Receive(_));
        self.rows.iter().flatten().any(is_message)
    }

    /// What has to be done, here or on another rank, before an action; `B` counts as `I`.
    pub fn needs(&self, action: Action) -> Vec<Action> {
        let Action { chunk, work, .. } = action;
        let forward = Action { work: Work::Forward, ..action };
        let input = Action { work: Work::BackwardInput, ..action };
        let needs = match work {
            Work::Forward => [chunk.checked_sub(1).map(|chunk| Action { chunk, ..action }), None],
            Work::BackwardWeight => [Some(input), None],
            Work::BackwardInput | Work::Backward => {
                let later = Some(chunk + 1).filter(|&later| later < self.places.len());
                [Some(forward), later.map(|chunk| Action { chunk, ..input })]
            }
        };
        needs.into_iter().flatten().collect()
    }

    /// The tokens of other ranks that an action waits for.
    pub fn takes(&self, action: Action) -> Vec<Token> {
        let from = self.needs(action).into_iter().map(|need| need.chunk);
        from.filter_map(|from| self.token(from, action.chunk, action.microbatch)).collect()
    }

    /// The token that an action makes for another rank.
    pub fn makes(&self, action: Action) -> Option<Token> {
        let reader = match action.work {
            Work::Forward => Some(action.chunk + 1).filter(|&next| next < self.places.len()),
            Work::BackwardInput | Work::Backward => action.chunk.checked_sub(1),
            Work::BackwardWeight => None,
        };
        self.token(action.chunk, reader?, action.microbatch)
    }

    /// What goes from one chunk to another, if they live apart.
    fn token(&self, from: usize, to: usize, microbatch: usize) -> Option<Token> {
        let crosses = self.places[from] != self.places[to];
        crosses.then_some(Token { from, to, microbatch })
    }
}

/// The rank of each chunk and the number of microbatches, as the cells have them.
fn extent(rows: &[Vec<Cell>]) -> Result<(Vec<usize>, usize), OrderError> {
    let (mut places, mut microbatches) = (BTreeMap::new(), BTreeSet::new());
    for (stage, row) in rows.iter().enumerate() {
        for action in row.iter().flat_map(|cell| cell.step.actions()) {
            places.entry(action.chunk).or_insert(stage);
            microbatches.insert(action.microbatch);
        }
    }
    // Cells may name any number, so they are counted before anything of that size is made.
    let gap = |numbers: &mut dyn Iterator<Item = usize>| {
        numbers.enumerate().find(|&(expected, number)| expected != number).map(|(gap, _)| gap)
    };
    if places.is_empty() {
        return Err(OrderError::Empty);
    }
    if let Some(number) = gap(&mut places.keys().copied()) {
        return Err(OrderError::Gap { what: "chunk", number });
    }
    if let Some(number) = gap(&mut microbatches.iter().copied()) {
        return Err(OrderError::Gap { what: "microbatch", number });
    }
    Ok((places.into_values().collect(), microbatches.len()))
}

#[cfg(test)]
mod tests;
