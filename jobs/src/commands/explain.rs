//! `explain`: what a code, field, variant, preset or exit code means.

use serde_json::json;

use crate::{
    de::suggestion,
    exit::Failure,
    explain::{Entry, all, find},
    report::SCHEMA,
};

/// Explains a name; without one, lists all that can be explained.
///
/// # Errors
///
/// If nothing has this name.
pub fn explain(name: Option<&str>, as_json: bool) -> Result<String, Failure> {
    let Some(name) = name else { return Ok(contents(as_json)) };
    let entries = find(name);
    if entries.is_empty() {
        let names: Vec<&str> = all().map(|entry| entry.name).collect();
        let near =
            suggestion(name, names).map_or(String::new(), |n| format!("; did you mean {n}?"));
        return Err(Failure::usage(format!("nothing is called `{name}`{near}")));
    }
    if as_json {
        let entry = |entry: &&Entry| {
            json!({ "name": entry.name, "kind": entry.kind.to_string(),
            "text": entry.text, "example": entry.example })
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        return Ok(format!("{}\n", json!({ "schema": SCHEMA, "entries": entries })));
    }
    let page = |entry: &&Entry| {
        let example = match entry.example {
            "" => String::new(),
            example => format!("\n    {}\n", example.replace('\n', "\n    ")),
        };
        format!("{} ({})\n\n{}\n{example}", entry.name, entry.kind, entry.text)
    };
    Ok(entries.iter().map(page).collect::<Vec<_>>().join("\n"))
}

fn contents(as_json: bool) -> String {
    if as_json {
        let names: Vec<&str> = all().map(|entry| entry.name).collect();
        return format!("{}\n", json!({ "schema": SCHEMA, "names": names }));
    }
    let line =
        |entry: &Entry| format!("{:<24} {}\n", entry.name, entry.text.lines().next().unwrap_or(""));
    all().map(line).collect()
}
