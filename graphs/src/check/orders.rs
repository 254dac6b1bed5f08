//! Legality of orders, cell by cell.

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
    /// Far fewer cells than work.
    #[error(
        "stage {stage}: {cells} cells cannot hold the work of {chunks} chunks for {microbatches} \
         microbatches"
    )]
    Sparse {
        /// Stage of the row.
        stage: usize,
        /// Actions in the row.
        cells: usize,
        /// Chunks of the stage.
        chunks: usize,
        /// Microbatches of a step.
        microbatches: usize,
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
            OrderError::Missing { stage, .. } | OrderError::Sparse { stage, .. } => {
                (Some(stage), None)
            }
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
        let own = places.iter().enumerate().filter(|&(_, &place)| place == stage);
        let chunks = own.map(|(chunk, _)| chunk).collect();
        Row { chunks, microbatches, stage }.check(order, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The smallest parts of the work of a chunk for a microbatch, in order.
const WORKS: [Work; 3] = [Work::Forward, Work::BackwardInput, Work::BackwardWeight];

/// How many times more work than cells is told part by part: files may name any numbers.
const SPARSE: usize = 1 << 6;

/// What the order of one stage must hold.
struct Row {
    /// Chunks of the stage, in the order of the model.
    chunks: Vec<usize>,
    microbatches: usize,
    stage: usize,
}

impl Row {
    fn check(&self, order: &[Action], errors: &mut Vec<OrderError>) {
        let (stage, cells) = (self.stage, order.len());
        let (chunks, microbatches) = (self.chunks.len(), self.microbatches);
        if chunks.saturating_mul(microbatches) / SPARSE > cells + SPARSE {
            errors.push(OrderError::Sparse { stage, cells, chunks, microbatches });
            return;
        }
        let mut done: Vec<Option<usize>> = vec![None; WORKS.len() * chunks * microbatches];
        for (cell, &action) in order.iter().enumerate() {
            for part in action.parts() {
                let Some(slot) = self.slot(part) else {
                    errors.push(OrderError::Foreign { stage, cell, action });
                    break;
                };
                let is_missing =
                    |it: &Action| self.slot(*it).is_none_or(|slot| done[slot].is_none());
                let needs = needs(part).filter(is_missing);
                if let Some(needs) = needs {
                    errors.push(OrderError::Early { stage, cell, action, needs });
                }
                match done[slot] {
                    Some(first) => {
                        errors.push(OrderError::Twice { stage, cell, action, first });
                    }
                    None => done[slot] = Some(cell),
                }
            }
        }
        let all = self.chunks.iter().flat_map(|&chunk| {
            (0..microbatches)
                .flat_map(move |microbatch| WORKS.map(|work| Action { chunk, work, microbatch }))
        });
        let missing = all.zip(&done).filter(|(_, done)| done.is_none());
        errors.extend(missing.map(|(action, _)| OrderError::Missing { stage, action }));
    }

    /// The place of a part among all that the stage has to do, if it has to.
    fn slot(&self, part: Action) -> Option<usize> {
        let chunk = self.chunks.binary_search(&part.chunk).ok()?;
        let work = WORKS.iter().position(|&work| work == part.work)?;
        let microbatch = Some(part.microbatch).filter(|&it| it < self.microbatches)?;
        Some((chunk * self.microbatches + microbatch) * WORKS.len() + work)
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
