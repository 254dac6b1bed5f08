//! The error page: every mistake with its places, for people and as JSON.

use std::fmt::Write;

use serde_json::json;

use crate::source::{Origin, Sources, Span};

/// Version of the JSON that `--json` prints.
pub const SCHEMA: u32 = 1;

/// One mistake in a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its code, which `troupe explain` knows.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Where; the first place is the one to change.
    pub places: Vec<Place>,
    /// What would be right.
    pub help: Option<String>,
}

/// A place with what is to be said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Where.
    pub span: Span,
    /// Text beside the carets; may be empty.
    pub label: String,
}

impl Finding {
    /// A mistake without a place yet.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Finding { code, message: message.into(), places: Vec::new(), help: None }
    }

    /// Adds a place.
    pub fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.places.push(Place { span, label: label.into() });
        self
    }

    /// Adds advice.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

/// All mistakes of a job, with the texts they point into.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.human(false))]
pub struct Report {
    /// The mistakes, in the order of the files.
    pub findings: Vec<Finding>,
    /// The texts.
    pub sources: Sources,
}

const RED: &str = "\x1b[1;31m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";

impl Report {
    /// Puts the mistakes in the order of their places and drops repeated ones.
    pub fn new(mut findings: Vec<Finding>, sources: Sources) -> Box<Self> {
        findings.sort_by_key(|f| f.places.first().map(|p| p.span));
        findings.dedup();
        Box::new(Report { findings, sources })
    }

    /// The page for people, with or without colour.
    pub fn human(&self, colour: bool) -> String {
        let mut page = String::new();
        for finding in &self.findings {
            self.finding(&mut page, finding, Paint { colour });
        }
        let count = self.findings.len();
        let code = self.findings.last().map_or("", |f| f.code);
        let plural = if count == 1 { "" } else { "s" };
        let _ = writeln!(page, "{count} error{plural}. troupe explain {code}");
        page
    }

    fn finding(&self, page: &mut String, finding: &Finding, paint: Paint) {
        let title = paint.with(RED, &format!("error[{}]", finding.code));
        let _ = writeln!(page, "{title}: {}", paint.with(BOLD, &finding.message));
        for place in &finding.places {
            self.place(page, place, paint);
        }
        if let Some(help) = &finding.help {
            for (n, line) in help.lines().enumerate() {
                let mark = if n == 0 { "=" } else { " " };
                let _ = writeln!(page, "  {} {line}", paint.with(BLUE, mark));
            }
        }
    }

    fn place(&self, page: &mut String, place: &Place, paint: Paint) {
        let name = self.sources.place(place.span);
        let arrow = paint.with(BLUE, "-->");
        if !self.has_lines(place.span) {
            let colon = if place.label.is_empty() { "" } else { ": " };
            let _ = writeln!(page, "  {arrow} {name}{colon}{}", place.label);
            return;
        }
        let (number, column) = self.sources.position(place.span);
        let number = number.to_string();
        let line = self.sources.line(place.span).replace('\t', " ");
        let room = line.chars().count().saturating_sub(column - 1).max(1);
        let width = self.sources.text(place.span).lines().next().unwrap_or("").chars().count();
        let carets = paint.with(RED, &"^".repeat(width.clamp(1, room)));
        let bar = paint.with(BLUE, "|");
        let gap = " ".repeat(number.len());
        let indent = " ".repeat(column - 1);
        let _ = writeln!(page, "{gap}{arrow} {name}\n{gap} {bar}");
        let _ = writeln!(page, "{} {bar} {line}", paint.with(BLUE, &number));
        let marked = format!("{gap} {bar} {indent}{carets} {}", paint.with(RED, &place.label));
        let _ = writeln!(page, "{}", marked.trim_end());
    }

    fn has_lines(&self, span: Span) -> bool {
        matches!(self.sources.get(span.source).origin, Origin::File(_) | Origin::LibraryJob(_))
    }

    /// The same as JSON: `{"schema", "errors": [{"code", "message", "places", "help"}]}`.
    pub fn json(&self) -> serde_json::Value {
        let place = |place: &Place| {
            let (line, column) = self.sources.position(place.span);
            let file = self.sources.get(place.span.source).origin.to_string();
            json!({ "file": file, "line": line, "column": column, "label": place.label })
        };
        let finding = |finding: &Finding| {
            json!({
                "code": finding.code,
                "message": finding.message,
                "places": finding.places.iter().map(place).collect::<Vec<_>>(),
                "help": finding.help,
            })
        };
        json!({
            "schema": SCHEMA,
            "errors": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("{code}{text}\x1b[0m") } else { text.into() }
    }
}
