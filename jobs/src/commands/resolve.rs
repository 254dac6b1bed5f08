//! `resolve`: the final job, the origin of its values, or its model.

use serde_json::json;

use crate::{exit::Failure, load::Loaded, report::SCHEMA};

/// What is printed of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The job as a file.
    Job,
    /// Each value with its origin.
    Origins,
    /// The model as a graph.
    Model,
}

/// Prints a part of a loaded job.
///
/// # Errors
///
/// If the model is a folder, which has no text.
pub fn resolve(loaded: &Loaded, part: Part, as_json: bool) -> Result<String, Failure> {
    let (name, text) = match part {
        Part::Job => ("job", loaded.text()),
        Part::Origins => ("origins", loaded.origins()),
        Part::Model => {
            let text = loaded.model_text().ok_or_else(|| {
                Failure::usage("the model is a folder; its config.json says what it is".into())
            })?;
            ("model", text)
        }
    };
    Ok(if as_json { format!("{}\n", json!({ "schema": SCHEMA, name: text })) } else { text })
}
