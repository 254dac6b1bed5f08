//! Files that are one document each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Entry;
use crate::data::error::{DataError, cannot};

/// The document in a file.
pub(super) fn document(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(cannot("read", path))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        let reason = format!("expected UTF-8 text, got byte {:#04x}", error.as_bytes()[at]);
        DataError::Document { path: path.to_path_buf(), line: Some(line as u64), reason }
    })
}

/// Text files of a folder and its subfolders by name, and how many others there are.
pub(super) fn below(folder: &Path) -> Result<(Vec<Entry>, usize), DataError> {
    let mut paths = Vec::new();
    walk(folder, &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    let mut others = 0;
    for path in paths {
        match document(&path) {
            Ok(_) => {
                let name = path.display().to_string();
                files.push(Entry::new(path, name)?);
            }
            Err(DataError::Document { .. }) => others += 1,
            Err(error) => return Err(error),
        }
    }
    if files.is_empty() {
        let what = format!("no text file in {}", folder.display());
        return Err(DataError::Empty { what });
    }
    Ok((files, others))
}

/// Adds all files that are not hidden; links are not followed, so there is no circle.
fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(cannot("read", folder))? {
        let entry = entry.map_err(cannot("read", folder))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(cannot("read", entry.path()))?;
        if kind.is_dir() {
            walk(&entry.path(), paths)?;
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_whole_and_what_is_not_text_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        fs::write(dir.path().join("b/c/deep.txt"), "deep").unwrap();
        fs::write(dir.path().join("a.txt"), "first").unwrap();
        fs::write(dir.path().join(".hidden"), "no").unwrap();
        fs::write(dir.path().join("picture.png"), [0x89, 0x50]).unwrap();
        let (files, others) = below(dir.path()).unwrap();
        let names: Vec<_> =
            files.iter().map(|f| f.path.strip_prefix(dir.path()).unwrap()).collect();
        assert_eq!(names, [Path::new("a.txt"), Path::new("b/c/deep.txt")]);
        assert_eq!(others, 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.txt");
        fs::write(&path, b"good\nbad \xff").unwrap();
        let error = document(&path).unwrap_err().to_string();
        assert!(error.ends_with("x.txt:2: expected UTF-8 text, got byte 0xff"), "{error}");
    }
}
