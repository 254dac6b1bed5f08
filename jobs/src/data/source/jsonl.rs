//! JSON Lines: one object a line, the document in one of its fields.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use serde_json::Value;

use super::Documents;
use crate::data::error::{DataError, cannot};

/// Streams the documents of a file, decompressing it if its name ends in `.zst`.
pub(super) fn documents<'a>(path: &Path, field: &'a str) -> Result<Documents<'a>, DataError> {
    let file = File::open(path).map_err(cannot("read", path))?;
    let plain: Box<dyn Read> = if path.extension().is_some_and(|ending| ending == "zst") {
        Box::new(zstd::Decoder::new(file).map_err(cannot("read", path))?)
    } else {
        Box::new(file)
    };
    let path = path.to_path_buf();
    let lines = BufReader::new(plain).lines().zip(1..);
    Ok(Box::new(lines.map(move |(line, number)| {
        let bad = |reason| DataError::Document { path: path.clone(), line: Some(number), reason };
        let line = line.map_err(|error| bad(error.to_string()))?;
        document(&line, field).map_err(bad)
    })))
}

fn document(line: &str, field: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(line)
        .map_err(|error| format!("expected a JSON object with field `{field}`, got {error}"))?;
    let Value::Object(mut object) = value else {
        return Err(format!("expected a JSON object with field `{field}`, got {value}"));
    };
    match object.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("expected text in field `{field}`, got {other}")),
        None => {
            let names: Vec<_> = object.keys().map(|name| format!("`{name}`")).collect();
            Err(format!("expected field `{field}`, got only {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(path: &Path) -> Result<Vec<String>, String> {
        let all = documents(path, "text").unwrap().collect::<Result<_, _>>();
        all.map_err(|error| error.to_string())
    }

    #[test]
    fn plain_and_compressed_lines_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let lines = "{\"text\": \"one\\n\"}\n{\"id\": 2, \"text\": \"zwei é\"}\n";
        fs::write(dir.path().join("a.jsonl"), lines).unwrap();
        let packed = zstd::encode_all(lines.as_bytes(), 3).unwrap();
        fs::write(dir.path().join("a.jsonl.zst"), packed).unwrap();
        for name in ["a.jsonl", "a.jsonl.zst"] {
            assert_eq!(read(&dir.path().join(name)).unwrap(), ["one\n", "zwei é"]);
        }
    }

    #[test]
    fn a_bad_line_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let bad = [
            ("{\"body\": 1}", "expected field `text`, got only `body`"),
            ("{\"text\": 1}", "expected text in field `text`, got 1"),
            ("[1]", "expected a JSON object with field `text`, got [1]"),
            ("{\"text\": ", "expected a JSON object with field `text`, got EOF"),
            ("", "expected a JSON object with field `text`, got EOF"),
        ];
        for (line, reason) in bad {
            fs::write(&path, format!("{{\"text\": \"fine\"}}\n{line}\n")).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.contains(&format!("a.jsonl:2: {reason}")), "{error}");
        }
    }
}
