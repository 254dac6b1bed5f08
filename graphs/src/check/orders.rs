//! Legality of orders, cell by cell.

use std::collections::BTreeMap;

use crate::{
    action::{Action, Work},
    schedule::Pipeline,
};

/// A mistake in an order, with its cell; stages and cells are counted from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OrderError {
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
    /// Work that stands nowhere.
    #[error("stage {stage}: {action} is missing")]
    Missing {
        /// Stage of the row.
        stage: usize,
        /// What should stand there.
        action: Action,
    },
}

/// Checks the orders of all stages of a pipeline with loop placement: chunk `c` on stage `c % p`.
///
/// # Errors
///
/// All the [`OrderError`]s there are, by stage and cell.
pub fn orders(pipeline: Pipeline, orders: &[Vec<Action>]) -> Result<(), Vec<OrderError>> {
    let expected = pipeline.stages;
    if orders.len() != expected {
        return Err(vec![OrderError::Rows { got: orders.len(), expected }]);
    }
    let mut errors = Vec::new();
    for (stage, order) in orders.iter().enumerate() {
        check_row(pipeline, stage, order, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_row(pipeline: Pipeline, stage: usize, order: &[Action], errors: &mut Vec<OrderError>) {
    let mut done: BTreeMap<Action, usize> = BTreeMap::new();
    for (cell, &action) in order.iter().enumerate() {
        if !belongs(pipeline, stage, action) {
            errors.push(OrderError::Foreign { stage, cell, action });
            continue;
        }
        for part in parts(action) {
            if let Some(needs) = needs(part).filter(|needs| !done.contains_key(needs)) {
                errors.push(OrderError::Early { stage, cell, action, needs });
            }
            if let Some(&first) = done.get(&part) {
                errors.push(OrderError::Twice { stage, cell, action, first });
            }
            done.entry(part).or_insert(cell);
        }
    }
    for action in all(pipeline, stage).filter(|action| !done.contains_key(action)) {
        errors.push(OrderError::Missing { stage, action });
    }
}

fn belongs(pipeline: Pipeline, stage: usize, action: Action) -> bool {
    let Pipeline { stages, virtual_stages, microbatches } = pipeline;
    action.chunk % stages == stage
        && action.chunk / stages < virtual_stages
        && action.microbatch < microbatches
}

/// `B` is `I` and then `W`.
fn parts(action: Action) -> Vec<Action> {
    match action.work {
        Work::Backward => [Work::BackwardInput, Work::BackwardWeight]
            .map(|work| Action { work, ..action })
            .to_vec(),
        _ => vec![action],
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

/// All that a stage has to do, in parts.
fn all(pipeline: Pipeline, stage: usize) -> impl Iterator<Item = Action> {
    let Pipeline { stages, virtual_stages, microbatches } = pipeline;
    let works = [Work::Forward, Work::BackwardInput, Work::BackwardWeight];
    (0..virtual_stages).map(move |turn| turn * stages + stage).flat_map(move |chunk| {
        (0..microbatches).flat_map(move |microbatch| {
            works.into_iter().map(move |work| Action { chunk, work, microbatch })
        })
    })
}
