//! `import`: what is in a folder of transformers, as a model that a job can name.

use std::path::Path;

use serde_json::{Value, json};

use crate::{exit::Failure, huggingface, prepare::PrepareError, report::SCHEMA};

/// Reads a folder, checks every tensor, and returns its model as a `Decoder(..)`.
///
/// A job trains on from it with `model: File("x.ron")` and `init: HuggingFace("dir")`, or with
/// `model: HuggingFace("dir")` alone.
///
/// # Errors
///
/// Every field and tensor of the folder that does not describe such a model.
pub fn import(dir: &Path, as_json: bool) -> Result<String, Failure> {
    let read = huggingface::read(dir).map_err(PrepareError::from)?;
    // Through text, since a value widens 0.02 in f32 to 0.019999999552965164.
    let fields = serde_json::to_string(&read.decoder).unwrap_or_default();
    let fields: Value = serde_json::from_str(&fields).unwrap_or_default();
    let model = format!("Decoder{}", record(&fields));
    eprintln!(
        "{}: {} parameters in {} tensors, all of the right shape",
        dir.display(),
        crate::view::progress::grouped(read.decoder.parameter_count() as u64),
        read.tensors.len()
    );
    Ok(match as_json {
        true => format!("{}\n", json!({ "schema": SCHEMA, "model": model, "decoder": fields })),
        false => format!("{model}\n"),
    })
}

/// A JSON object as a RON record; fields without a value are left out.
fn record(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let given = fields.iter().filter(|(_, value)| !value.is_null());
            let given = given.map(|(name, value)| format!("{name}: {}", record(value)));
            format!("({})", given.collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_is_written_as_a_job_reads_it() {
        let fields = json!({ "layers": 2, "q_rank": null, "yarn": { "factor": 4.0 } });
        assert_eq!(record(&fields), "(layers: 2, yarn: (factor: 4.0))");
    }
}
