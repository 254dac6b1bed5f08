//! Bounds of what a node may ask for, so that no product of its sizes overflows later.

use ops::Op;

use super::Row;
use crate::model::ModelError;

/// Largest width, vocabulary or number of heads; products of three stay below 2^63 in practice,
/// and the widest known model has 163 840 tokens.
const SIZE_LIMIT: usize = 1 << 25;

/// Most experts of one router, and so most weights of one node.
const EXPERT_LIMIT: usize = 1 << 14;

/// Weights of the largest model; a trillion-parameter one has seventy thousand.
const WEIGHT_LIMIT: usize = 1 << 21;

/// Sizes of any row that are zero or beyond every machine.
pub(super) fn check(rows: &[Row<'_>]) -> Result<(), Vec<ModelError>> {
    let mut errors: Vec<ModelError> = rows.iter().flat_map(outside).collect();
    let weights = rows.iter().fold(0_usize, |sum, row| sum.saturating_add(weights(row)));
    if errors.is_empty() && weights > WEIGHT_LIMIT {
        errors.push(ModelError::TooManyWeights { got: weights, limit: WEIGHT_LIMIT });
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn outside(row: &Row<'_>) -> Vec<ModelError> {
    let error = |(field, got, limit)| {
        let is_wrong = !(1..=limit).contains(&got);
        is_wrong.then(|| ModelError::Size { node: row.name.clone(), field, got, limit })
    };
    sizes(&row.written.op).into_iter().filter_map(error).collect()
}

/// Weight tensors of a row, none of them made yet.
fn weights(row: &Row<'_>) -> usize {
    match &row.written.op {
        Op::GroupedLinear(op) => op.experts,
        _ => 1,
    }
}

/// Each size of an operator by the name of its field, with the greatest it may be.
fn sizes(op: &Op) -> Vec<(&'static str, usize, usize)> {
    let size = |field, got| (field, got, SIZE_LIMIT);
    let experts = |field, got| (field, got, EXPERT_LIMIT);
    match op {
        Op::Embedding(op) => vec![size("vocab", op.vocab), size("width", op.width)],
        Op::RmsNorm(op) => vec![size("width", op.width)],
        Op::Linear(op) => vec![size("input", op.input), size("output", op.output)],
        Op::Split(op) => op.widths.iter().map(|&width| size("widths", width)).collect(),
        Op::MlaAttention(op) => vec![
            size("heads", op.heads),
            size("nope", op.nope),
            size("rope", op.rope),
            size("value", op.value),
        ],
        Op::SwiGlu(op) => vec![size("width", op.width)],
        Op::Router(op) => vec![
            size("width", op.width),
            experts("experts", op.experts),
            experts("experts_per_token", op.experts_per_token),
            experts("groups", op.groups),
            experts("groups_per_token", op.groups_per_token),
        ],
        Op::Dispatch(op) => vec![size("width", op.width), experts("experts", op.experts)],
        Op::GroupedLinear(op) => {
            vec![experts("experts", op.experts), size("input", op.input), size("output", op.output)]
        }
        Op::Weigh(op) => vec![size("width", op.width)],
        Op::Combine(op) => vec![size("width", op.width), experts("experts", op.experts)],
        Op::Add(op) => vec![size("width", op.width)],
        Op::CrossEntropy(op) => vec![size("width", op.width), size("vocab", op.vocab)],
    }
}
