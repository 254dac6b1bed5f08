//! Where documents come from, in a stable order.
//!
//! A source is first listed (which files, how many bytes: nothing is read) and then streamed.

mod jsonl;
mod parquet;
mod rust_sources;
mod text;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

use super::{
    cache,
    error::{DataError, cannot},
};

/// Files that hold documents, as a job names them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub enum Source {
    /// Every file that matches is one document, in the order of the names.
    Text {
        /// File pattern such as `text/**/*.md`.
        glob: String,
    },
    /// Every text file of a folder and its subfolders is one document, in the order of the names.
    ///
    /// Hidden files and files that are not UTF-8 are left out, and counted in [`Used::left_out`].
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Every line is a JSON object with the document in one field; `.zst` is decompressed.
    Jsonl {
        /// File pattern such as `data/*.jsonl.zst`.
        glob: String,
        /// Name of the field.
        field: String,
    },
    /// Every row is a document, in one column of text.
    Parquet {
        /// File pattern such as `data/*.parquet`.
        glob: String,
        /// Name of the column.
        column: String,
    },
    /// Rust sources of this tool's own dependencies, out of the local cargo registry.
    ///
    /// There is text on every machine that built the tool, so this is the corpus of small runs.
    /// Files are taken in the order of a hash of `crate-version/path`, which mixes the crates and
    /// does not depend on where the registry lies, up to a number of bytes.
    RustSources {
        /// Bytes to take at most.
        bytes: u64,
    },
}

/// One file of a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is called in cache names; does not depend on where a registry lies.
    pub name: String,
    /// Size on disk.
    pub bytes: u64,
    /// Time of its last change in nanoseconds, if the system knows.
    pub modified: u128,
}

impl Entry {
    fn new(path: PathBuf, name: String) -> Result<Self, DataError> {
        let about = fs::metadata(&path).map_err(cannot("read", &path))?;
        let age = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = age.map_or(0, |age| age.as_nanos());
        Ok(Entry { path, name, bytes: about.len(), modified })
    }
}

/// The files of a source as they are now.
#[derive(Clone, Debug)]
pub struct Listing {
    source: Source,
    files: Vec<Entry>,
    left_out: usize,
}

/// What a run reads, for the line that says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Used {
    /// Number of files.
    pub files: usize,
    /// Their size on disk.
    pub bytes: u64,
    /// Files of a folder that are not text.
    pub left_out: usize,
    /// Which files they are.
    pub description: String,
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.bytes as f64 / f64::from(1 << 20);
        write!(f, "{}: {} files, {mebibytes:.1} MiB", self.description, self.files)?;
        match self.left_out {
            0 => Ok(()),
            n => write!(f, "; {n} files that are not text are left out"),
        }
    }
}

/// Documents in order; the first error is the last item that means anything.
pub type Documents<'a> = Box<dyn Iterator<Item = Result<String, DataError>> + 'a>;

impl Source {
    /// Finds the files.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] if there is none, [`DataError::Pattern`] if the pattern is malformed,
    /// [`DataError::File`] if a folder cannot be read.
    pub fn list(&self) -> Result<Listing, DataError> {
        let (files, left_out) = match self {
            Source::Text { glob } | Source::Jsonl { glob, .. } | Source::Parquet { glob, .. } => {
                (matching(glob)?, 0)
            }
            Source::Folder { path } => text::below(path)?,
            Source::RustSources { bytes } => (rust_sources::files(*bytes)?, 0),
        };
        Ok(Listing { source: self.clone(), files, left_out })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Text { glob } => write!(f, "text files {glob}"),
            Source::Folder { path } => write!(f, "text files in {}", path.display()),
            Source::Jsonl { glob, field } => write!(f, "field `{field}` of {glob}"),
            Source::Parquet { glob, column } => write!(f, "column `{column}` of {glob}"),
            Source::RustSources { .. } => f.write_str("Rust sources of the cargo registry"),
        }
    }
}

impl Listing {
    /// What is used, for people.
    pub fn used(&self) -> Used {
        Used {
            files: self.files.len(),
            bytes: self.files.iter().map(|file| file.bytes).sum(),
            left_out: self.left_out,
            description: self.source.to_string(),
        }
    }

    /// Streams the documents, one file open at a time.
    pub fn documents(&self) -> Documents<'_> {
        Box::new(self.files.iter().flat_map(|file| self.read(&file.path)))
    }

    fn read(&self, path: &Path) -> Documents<'_> {
        match &self.source {
            Source::Jsonl { field, .. } => opened(jsonl::documents(path, field)),
            Source::Parquet { column, .. } => opened(parquet::documents(path, column)),
            _ => Box::new(std::iter::once(text::document(path))),
        }
    }

    /// Changes whenever the documents may have changed: what is read and each file's name, size
    /// and time of change.
    pub(super) fn key(&self) -> String {
        let kind = match &self.source {
            Source::Jsonl { field, .. } => format!("jsonl {field}"),
            Source::Parquet { column, .. } => format!("parquet {column}"),
            _ => "text".to_string(),
        };
        let parts = self.files.iter().map(|f| format!("{} {} {}", f.name, f.bytes, f.modified));
        let parts: Vec<String> = std::iter::once(kind).chain(parts).collect();
        cache::key(parts.iter().map(String::as_bytes))
    }
}

/// A file's documents, or the one error of opening it.
fn opened<'a>(documents: Result<Documents<'a>, DataError>) -> Documents<'a> {
    documents.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
}

/// Files that match a pattern, in the order of their names.
fn matching(pattern: &str) -> Result<Vec<Entry>, DataError> {
    let paths = glob::glob(pattern)
        .map_err(|source| DataError::Pattern { pattern: pattern.to_string(), source })?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let path = error.path().to_path_buf();
            cannot("read", path)(error.into())
        })?;
        if path.is_file() {
            let name = path.display().to_string();
            files.push(Entry::new(path, name)?);
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if files.is_empty() {
        return Err(DataError::Empty { what: format!("no file matches `{pattern}`") });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_their_names_and_a_change_changes_the_key() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a.txt", "c.md"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let source = Source::Text { glob: format!("{}/*.txt", dir.path().display()) };
        let listing = source.list().unwrap();
        let documents: Vec<String> = listing.documents().map(Result::unwrap).collect();
        assert_eq!(documents, ["a.txt", "b.txt"]);
        assert_eq!((listing.used().files, listing.used().bytes), (2, 10));
        fs::write(dir.path().join("a.txt"), "longer").unwrap();
        assert_ne!(source.list().unwrap().key(), listing.key());
    }

    #[test]
    fn a_pattern_without_files_says_so() {
        let source = Source::Text { glob: "/nowhere/*.txt".into() };
        let error = source.list().unwrap_err().to_string();
        assert_eq!(error, "no text to train on: no file matches `/nowhere/*.txt`");
    }
}
