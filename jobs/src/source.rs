//! Where every piece of a job's text came from: files, library entries and arguments.

use std::{fmt, path::PathBuf};

/// Index of a [`Source`] in [`Sources`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SourceId(u32);

/// A range of bytes of one source.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span {
    /// The source it lies in.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// From the start of `self` to the end of `other`, which lies behind it in the same source.
    pub fn to(self, other: Span) -> Span {
        Span { end: other.end.max(self.end), ..self }
    }

    /// The empty place just behind `self`.
    pub fn behind(self) -> Span {
        Span { start: self.end, ..self }
    }

    /// Its first byte, which must be a character of its own, such as a bracket.
    pub fn first(self) -> Span {
        Span { end: self.end.min(self.start + 1), ..self }
    }

    /// Whether the two have bytes in common.
    pub fn overlaps(self, other: Span) -> bool {
        self.source == other.source && self.start < other.end && other.start < self.end
    }
}

/// What kind of text a source is, and what people call it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A file, by the path with which it was reached.
    File(PathBuf),
    /// A job that ships with the program.
    LibraryJob(String),
    /// A model that ships with the program.
    Preset(String),
    /// An argument of the command line, as written.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::LibraryJob(name) => write!(f, "library job {name}"),
            Origin::Preset(name) => write!(f, "preset {name}"),
            Origin::Argument(text) => f.write_str(text),
        }
    }
}

/// One text with its origin.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it was read.
    pub origin: Origin,
    /// All of it.
    pub text: String,
}

/// All texts that one job is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Keeps a text and returns its index.
    pub fn add(&mut self, origin: Origin, text: impl Into<String>) -> SourceId {
        self.0.push(Source { origin, text: text.into() });
        SourceId(self.0.len() as u32 - 1)
    }

    /// All texts, in the order in which they were read.
    pub fn all(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// The text behind an index.
    pub fn get(&self, id: SourceId) -> &Source {
        &self.0[id.0 as usize]
    }

    /// The characters of a span.
    pub fn text(&self, span: Span) -> &str {
        self.get(span.source).text.get(span.start as usize..span.end as usize).unwrap_or("")
    }

    /// Line and column of the start of a span, both counted from one, columns in characters.
    pub fn position(&self, span: Span) -> (usize, usize) {
        let before = &self.get(span.source).text[..span.start as usize];
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
    }

    /// The whole line in which a span starts.
    pub fn line(&self, span: Span) -> &str {
        let text = &self.get(span.source).text;
        let start = text[..span.start as usize].rfind('\n').map_or(0, |at| at + 1);
        text[start..].split('\n').next().unwrap_or("").trim_end_matches('\r')
    }

    /// The place as people write it: `k2.ron:11:20`, an argument, or a preset.
    pub fn place(&self, span: Span) -> String {
        let (line, column) = self.position(span);
        match &self.get(span.source).origin {
            origin @ (Origin::File(_) | Origin::LibraryJob(_)) => {
                format!("{origin}:{line}:{column}")
            }
            origin => origin.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_are_counted_from_one_in_characters() {
        let mut sources = Sources::default();
        let source = sources.add(Origin::File("a.ron".into()), "(\n  \"é\": x,\n)");
        let span = Span { source, start: 10, end: 11 };
        assert_eq!(sources.text(span), "x");
        assert_eq!(sources.place(span), "a.ron:2:8");
        assert_eq!(sources.line(span), "  \"é\": x,");
    }
}
