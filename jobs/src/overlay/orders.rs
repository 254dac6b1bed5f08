//! Reads a file of orders as a schedule: `Csv("orders.csv")` becomes `Orders([rows])`.
//!
//! So the resolved job holds the orders itself, and every mistake in them points into the file.

use graphs::{bare::Bare, csv, csv::CellError};

use crate::{
    code,
    overlay::{Overlay, broken},
    report::Finding,
    source::{Origin, SourceId, Span},
    tree::{Kind, Value, Word},
};

/// Mistakes of a file that are reported; the rest is counted.
const SHOWN: usize = 20;

/// The code of an order that breaks the law.
const UNLAWFUL: &str = "P120";

impl Overlay {
    /// The orders of a file, checked cell by cell.
    pub(super) fn orders(&mut self, path: &str, from: Span) -> Value {
        let path = self.beside(path, from);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                self.findings.push(Finding::new(code::FILE, message).at(from, ""));
                return broken(from);
            }
        };
        let source = self.sources.add(Origin::File(path), text.as_str());
        let mistakes = mistakes(&text, source, from);
        if mistakes.is_empty() {
            return value(&text, from);
        }
        let more = mistakes.len().saturating_sub(SHOWN);
        self.findings.extend(mistakes.into_iter().take(SHOWN));
        if more > 0 {
            let message = format!("and {more} more mistakes in the orders");
            self.findings.push(Finding::new(UNLAWFUL, message).at(from, "of this file"));
        }
        broken(from)
    }
}

/// Rows of cells as a job may write them.
fn value(text: &str, span: Span) -> Value {
    let row = |row: &str| Value::new(span, Kind::Text(row.into()));
    let rows = Value::new(span, Kind::List(rows(text).map(row).collect()));
    let name = Some(Word { text: "Orders".into(), span });
    Value::new(span, Kind::Tuple { name, items: vec![rows] })
}

fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

/// All that is wrong with a file, with the places of its cells.
fn mistakes(text: &str, source: SourceId, from: Span) -> Vec<Finding> {
    let finding = |code, message: String, (row, cell): (Option<usize>, Option<usize>)| {
        let place = row.and_then(|row| place(text, source, row, cell));
        Finding::new(code, message).at(place.unwrap_or(from), "")
    };
    let cells = match csv::read(text) {
        Ok(cells) => cells,
        Err(errors) => {
            let one = |error: &CellError| {
                finding(code::VALUE, error.to_string(), (Some(error.stage), Some(error.cell)))
            };
            return errors.iter().map(one).collect();
        }
    };
    let errors = Bare::new(cells).err().unwrap_or_default();
    errors.iter().map(|error| finding(UNLAWFUL, error.to_string(), error.place())).collect()
}

/// Where a cell stands in the text, or its whole row.
fn place(text: &str, source: SourceId, row: usize, cell: Option<usize>) -> Option<Span> {
    let row = rows(text).nth(row)?;
    let part = match cell {
        Some(cell) => row.split(',').nth(cell)?.trim(),
        None => row.trim(),
    };
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    Some(Span { source, start: start as u32, end: (start + part.len()) as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let mut overlay = Overlay::default();
        let source = overlay.sources.add(Origin::Argument("orders".into()), text);
        let from = Span { source, start: 0, end: 0 };
        let found = mistakes(text, source, from);
        let place = |finding: &Finding| {
            let span = finding.places[0].span;
            text[span.start as usize..span.end as usize].to_string()
        };
        let found: Vec<(String, String)> =
            found.iter().map(|it| (place(it), it.message.clone())).collect();
        let expected: Vec<(String, String)> =
            expected.iter().map(|&(place, text)| (place.into(), text.into())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_mistake_points_at_its_cell_or_at_its_row() {
        let twice = "stage 1, cell 3: 1F0 does again what cell 1 has done";
        check("0F0,0B0\n\n,1F0, 1B0, 1F0\n", &[("1F0", twice)]);
        check(
            "0F0,0B0\n1F0",
            &[("1F0", "stage 1: 1I0 is missing"), ("1F0", "stage 1: 1W0 is missing")],
        );
        check("", &[("", "the orders have no work")]);
    }
}
