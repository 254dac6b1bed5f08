//! Checks the inputs of an operator against the shapes it was built for.

use crate::{Dim, Kind, ShapeError, Spec};

/// Succeeds if `inputs` are `expected`; `letters` is how the message spells what is expected.
///
/// # Errors
///
/// [`ShapeError`] with both spellings.
pub(crate) fn check(
    op: &'static str,
    inputs: &[Spec],
    expected: &[Spec],
    letters: String,
) -> Result<(), ShapeError> {
    if inputs == expected { Ok(()) } else { Err(mismatch(op, inputs, letters)) }
}

/// The error that says what was expected and what came.
pub(crate) fn mismatch(op: &'static str, inputs: &[Spec], expected: String) -> ShapeError {
    let got: Vec<String> = inputs.iter().map(Spec::to_string).collect();
    let got = if got.is_empty() { "nothing".into() } else { got.join(" and ") };
    ShapeError { op, expected, got }
}

/// `[t, width]` of whole numbers, or `[t]` if there is no width.
pub(crate) fn token_index(width: Option<usize>) -> Spec {
    let mut dims = vec![Dim::Tokens];
    dims.extend(width.map(Dim::Of));
    Spec { dims, kind: Kind::Index }
}

/// `[width]` of whole numbers: rows per expert.
pub(crate) fn counts(width: usize) -> Spec {
    Spec { dims: vec![Dim::Of(width)], kind: Kind::Index }
}

/// `[r, 1]` that is always f32: the share of each row.
pub(crate) fn exact_rows() -> Spec {
    Spec { dims: vec![Dim::Rows, Dim::Of(1)], kind: Kind::Exact }
}

/// `[t, width]` that is always f32: the router's shares.
pub(crate) fn exact(width: usize) -> Spec {
    Spec { dims: vec![Dim::Tokens, Dim::Of(width)], kind: Kind::Exact }
}
