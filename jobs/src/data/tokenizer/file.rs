//! A `tokenizer.json`, and which of its tokens ends a document.

use std::{fs, path::Path};

use serde_json::Value;

use super::{DataError, END, Tokenizer, cannot};

/// Tokens that end documents in models of others, looked for in this order.
const ENDS: [&str; 6] = [END, "[EOS]", "<|endoftext|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>"];

/// Reads a tokenizer; the end of documents is `eos_token` of the `tokenizer_config.json` beside
/// it, or a well known token.
pub(super) fn read(path: &Path) -> Result<Tokenizer, DataError> {
    let json = fs::read_to_string(path).map_err(cannot("read", path))?;
    let named = |error| match error {
        DataError::Tokenizer { what, source } => {
            DataError::Tokenizer { what: format!("{} {what}", path.display()), source }
        }
        other => other,
    };
    if let Some(end) = configured_end(&path.with_file_name("tokenizer_config.json"))? {
        return Tokenizer::from_json(&json, &end).map_err(named);
    }
    let value: Value = serde_json::from_str(&json).map_err(|error| DataError::Tokenizer {
        what: format!("{} is no JSON", path.display()),
        source: Some(error.into()),
    })?;
    let added: Vec<&str> = value["added_tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|token| token["content"].as_str())
        .collect();
    let Some(end) = ENDS.into_iter().find(|end| added.contains(end)) else {
        let what = format!(
            "{} has no token that ends documents: name one as `eos_token` in the \
             tokenizer_config.json beside it",
            path.display()
        );
        return Err(DataError::Tokenizer { what, source: None });
    };
    Tokenizer::from_json(&json, end).map_err(named)
}

/// `eos_token` of a `tokenizer_config.json`, if there is one; older files nest its text.
fn configured_end(path: &Path) -> Result<Option<String>, DataError> {
    if !path.exists() {
        return Ok(None);
    }
    let json = fs::read_to_string(path).map_err(cannot("read", path))?;
    let value: Value = serde_json::from_str(&json).map_err(|error| DataError::Tokenizer {
        what: format!("configuration {} is no JSON", path.display()),
        source: Some(error.into()),
    })?;
    let end = &value["eos_token"];
    Ok(end.as_str().or_else(|| end["content"].as_str()).map(String::from))
}
