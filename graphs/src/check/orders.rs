//! Legality of orders, cell by cell.

use std::collections::BTreeMap;

use crate::{
    action::{Action, Work},
    bare::Cell,
};

/// A mistake in an order, with its cell; stages and cells are counted from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OrderError {
    /// There is nothing to do.
    #[error("the orders have no work")]
    Empty,
    /// There are more or fewer rows than stages.
    #[error("the orders have {got} rows for {expected} stages")]
    Rows {
        /// Rows there are.
        got: usize,
        /// Stages of the pipeline.
        expected: usize,
    },
    /// The action is none of this stage's.
    #[error("stage {stage}, cell {cell}: {action} is not work of this stage")]
    Foreign {
        /// Stage of the row.
        stage: usize,
        /// Position in the row.
        cell: usize,
        /// What stands there.
        action: Action,
    },
    /// The same work stands twice.
    #[error("stage {stage}, cell {cell}: {action} does again what cell {first} has done")]
    Twice {
        /// Stage of the row.
        stage: usize,
        /// Position in the row.
        cell: usize,
        /// What stands there.
        action: Action,
        /// Position of the first time.
        first: usize,
    },
    /// The work stands before what it needs.
    #[error("stage {stage}, cell {cell}: {action} comes before its {needs}")]
    Early {
        /// Stage of the row.
        stage: usize,
        /// Position in the row.
        cell: usize,
        /// What stands there.
        action: Action,
        /// What has to come first.
        needs: Action,
    },
    /// A chunk or microbatch that no cell has, though one has a later one.
    #[error("{what} {number} stands nowhere, but a later one does")]
    Gap {
        /// Chunk or microbatch.
        what: &'static str,
        /// Its number.
        number: usize,
    },
    /// A send or receive, or work that waits for one, where it cannot be.
    #[error("stage {stage}, cell {cell}: {step} {wrong}")]
    Message {
        /// Stage of the row.
        stage: usize,
        /// Position in the row.
        cell: usize,
        /// What stands there.
        step: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// Work that stands nowhere.
    #[error("stage {stage}: {action} is missing")]
    Missing {
        /// Stage of the row.
        stage: usize,
        /// What should stand there.
        action: Action,
    },
}

impl OrderError {
    /// Row and cell that it is about, as far as it is about one.
    pub fn place(&self) -> (Option<usize>, Option<usize>) {
        match *self {
            OrderError::Empty | OrderError::Rows { .. } | OrderError::Gap { .. } => (None, None),
            OrderError::Missing { stage, .. } => (Some(stage), None),
            OrderError::Foreign { stage, cell, .. }
            | OrderError::Twice { stage, cell, .. }
            | OrderError::Early { stage, cell, .. }
            | OrderError::Message { stage, cell, .. } => (Some(stage), Some(cell)),
        }
    }

    /// Counts cells as columns of rows, where positions among the actions are counted so far.
    pub(crate) fn move_to(&mut self, rows: &[Vec<Cell>]) {
        let column = |stage: usize, position: usize| {
            let actions = |cell: &Cell| cell.step.actions().len();
            let columns =
                rows[stage].iter().flat_map(|c| std::iter::repeat_n(c.column, actions(c)));
            columns.clone().nth(position).unwrap_or(position)
        };
        match self {
            OrderError::Twice { stage, cell, first, .. } => {
                *first = column(*stage, *first);
                *cell = column(*stage, *cell);
            }
            OrderError::Foreign { stage, cell, .. } | OrderError::Early { stage, cell, .. } => {
                *cell = column(*stage, *cell);
            }
            _ => {}
        }
    }
}

/// Checks the orders of all stages, chunk `c` living on stage `places[c]`, for the microbatches
/// `0..microbatches`.
///
/// # Errors
///
/// All the [`OrderError`]s there are, by stage and cell.
pub fn orders(
    places: &[usize],
    microbatches: usize,
    orders: &[Vec<Action>],
) -> Result<(), Vec<OrderError>> {
    let expected = places.iter().max().map_or(0, |last| last + 1);
    if orders.len() != expected {
        return Err(vec![OrderError::Rows { got: orders.len(), expected }]);
    }
    let mut errors = Vec::new();
    for (stage, order) in orders.iter().enumerate() {
        Row { places, microbatches, stage }.check(order, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// What the order of one stage must hold.
struct Row<'a> {
    places: &'a [usize],
    microbatches: usize,
    stage: usize,
}

impl Row<'_> {
    fn check(&self, order: &[Action], errors: &mut Vec<OrderError>) {
        let stage = self.stage;
        let mut done: BTreeMap<Action, usize> = BTreeMap::new();
        for (cell, &action) in order.iter().enumerate() {
            if !self.holds(action) {
                errors.push(OrderError::Foreign { stage, cell, action });
                continue;
            }
            for part in action.parts() {
                if let Some(needs) = needs(part).filter(|needs| !done.contains_key(needs)) {
                    errors.push(OrderError::Early { stage, cell, action, needs });
                }
                if let Some(&first) = done.get(&part) {
                    errors.push(OrderError::Twice { stage, cell, action, first });
                }
                done.entry(part).or_insert(cell);
            }
        }
        for action in self.all().filter(|action| !done.contains_key(action)) {
            errors.push(OrderError::Missing { stage, action });
        }
    }

    fn holds(&self, action: Action) -> bool {
        self.places.get(action.chunk) == Some(&self.stage) && action.microbatch < self.microbatches
    }

    /// All that the stage has to do, in parts.
    fn all(&self) -> impl Iterator<Item = Action> {
        let works = [Work::Forward, Work::BackwardInput, Work::BackwardWeight];
        let own = self.places.iter().enumerate().filter(|&(_, &stage)| stage == self.stage);
        own.flat_map(move |(chunk, _)| {
            (0..self.microbatches).flat_map(move |microbatch| {
                works.into_iter().map(move |work| Action { chunk, work, microbatch })
            })
        })
    }
}

/// What the same stage has to have done before.
fn needs(part: Action) -> Option<Action> {
    match part.work {
        Work::Forward => None,
        Work::BackwardWeight => Some(Action { work: Work::BackwardInput, ..part }),
        Work::BackwardInput | Work::Backward => Some(Action { work: Work::Forward, ..part }),
    }
}
