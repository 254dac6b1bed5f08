//! Files that are computed once: named by a hash of what they were made from, written atomically.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use super::error::{DataError, cannot};

/// Returns `folder/name`, made by `write` if it is not there yet.
///
/// `write` fills a file beside it that gets the name when it is complete, so that a process that
/// is killed, or a second one that does the same, leaves no half file under the name.
pub(super) fn made(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut BufWriter<File>, &Path) -> Result<(), DataError>,
) -> Result<PathBuf, DataError> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(folder).map_err(cannot("create", folder))?;
    let partial = folder.join(format!(".partial-{}-{name}", std::process::id()));
    let mut file = BufWriter::new(File::create(&partial).map_err(cannot("write", &partial))?);
    let done = write(&mut file, &partial).and_then(|()| {
        let file = file.into_inner().map_err(|e| cannot("write", &partial)(e.into_error()))?;
        file.sync_all().map_err(cannot("write", &partial))?;
        fs::rename(&partial, &path).map_err(cannot("write", &path))
    });
    if let Err(error) = done {
        // The first error is the one to report; a leftover is only untidy.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    Ok(path)
}

/// Short hexadecimal hash of parts, which are told apart by their lengths.
pub(super) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..32].to_string()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing_and_a_done_one_is_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let failed = made(dir.path(), "x", |file, _| {
            file.write_all(b"half").unwrap();
            Err(DataError::Empty { what: "made up".into() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let path = made(dir.path(), "x", |file, path| {
            file.write_all(b"whole").map_err(cannot("write", path))
        });
        let again = made(dir.path(), "x", |_, _| panic!("it is there already"));
        assert_eq!(fs::read(path.unwrap()).unwrap(), b"whole");
        assert_eq!(fs::read(again.unwrap()).unwrap(), b"whole");
    }

    #[test]
    fn keys_tell_parts_apart() {
        assert_ne!(key([&b"ab"[..], b"c"]), key([&b"a"[..], b"bc"]));
    }
}
