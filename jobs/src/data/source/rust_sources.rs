//! The default corpus: Rust sources of this tool's dependencies, in the local cargo registry.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use super::Entry;
use crate::data::error::{DataError, cannot};

/// The versions this tool was built from, so that the corpus does not depend on what else a
/// registry holds.
const LOCK: &str = include_str!("../../../../Cargo.lock");

/// Larger files are tables that a program wrote.
const FILE_BYTES: u64 = 64 << 10;

/// The corpus out of the registry that cargo uses, `bytes` at most.
pub(super) fn files(bytes: u64) -> Result<Vec<Entry>, DataError> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let sources = home.unwrap_or_default().join("registry").join("src");
    below(&sources, LOCK, bytes)
}

/// The corpus out of `sources/*/<crate-version>/`, for the crates of a lock file.
fn below(sources: &Path, lock: &str, bytes: u64) -> Result<Vec<Entry>, DataError> {
    let mut files = Vec::new();
    for name in &crates(lock) {
        let registries = fs::read_dir(sources).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> =
            registries.map(|r| r.path().join(name)).filter(|path| path.is_dir()).collect();
        folders.sort();
        // Two registries may both hold a crate; one copy is enough.
        if let Some(folder) = folders.first() {
            walk(folder, name, &mut files)?;
        }
    }
    files.sort_by_cached_key(|file| *blake3::hash(file.name.as_bytes()).as_bytes());
    let mut room = bytes;
    files.retain(|file| {
        let fits = file.bytes <= room;
        room -= if fits { file.bytes } else { 0 };
        fits
    });
    if files.is_empty() {
        let what = format!(
            "no Rust sources of this tool's dependencies in {}; name a folder with --data DIR",
            sources.display()
        );
        return Err(DataError::Empty { what });
    }
    Ok(files)
}

/// Crates that are bindings by another name, with the one that loads them.
const BINDINGS: [&str; 2] = ["cudarc", "libloading"];

/// What only this crate brings lies in a registry where somebody has built with it, and nowhere
/// else: text that came and went with an optional part would not be the same text.
const OPTIONAL: &str = "mpi";

/// A crate of a lock file.
#[derive(Default)]
struct Locked<'l> {
    name: &'l str,
    version: &'l str,
    /// Whether it comes from a registry, and is none of ours.
    is_foreign: bool,
    /// Names of what it needs, with the version where the lock has several.
    needs: Vec<&'l str>,
}

/// `name-version` of every crate of a lock file that is needed without [`OPTIONAL`], but for
/// bindings, which programs write.
fn crates(lock: &str) -> BTreeSet<String> {
    let all = parsed(lock);
    let mut left: Vec<&Locked<'_>> = all.iter().filter(|it| !it.is_foreign).collect();
    let mut found = BTreeSet::new();
    while let Some(one) = left.pop() {
        if one.name == OPTIONAL || !found.insert((one.name, one.version)) {
            continue;
        }
        let is_needed = |it: &&Locked<'_>| {
            one.needs.iter().any(|need| match need.split_once(' ') {
                Some(exact) => exact == (it.name, it.version),
                None => *need == it.name,
            })
        };
        left.extend(all.iter().filter(is_needed));
    }
    let is_written = |name: &str| !name.ends_with("-sys") && !BINDINGS.contains(&name);
    let written = found.into_iter().filter(|(name, _)| is_written(name));
    written.map(|(name, version)| format!("{name}-{version}")).collect()
}

/// The crates of a lock file, in its order.
fn parsed(lock: &str) -> Vec<Locked<'_>> {
    let one = |text| {
        let mut locked = Locked::default();
        for line in str::lines(text) {
            match line.split_once(" = ") {
                Some(("name", name)) => locked.name = name.trim_matches('"'),
                Some(("version", version)) => locked.version = version.trim_matches('"'),
                Some(("source", _)) => locked.is_foreign = true,
                Some(_) => {}
                None => locked
                    .needs
                    .extend(line.strip_prefix(" \"").and_then(|it| it.strip_suffix("\","))),
            }
        }
        locked
    };
    lock.split("[[package]]").skip(1).map(one).collect()
}

/// Adds the `.rs` files below a folder, named from the crate on.
fn walk(folder: &Path, name: &str, files: &mut Vec<Entry>) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(cannot("read", folder))? {
        let entry = entry.map_err(cannot("read", folder))?;
        let (path, file_name) = (entry.path(), entry.file_name());
        let name = format!("{name}/{}", file_name.to_string_lossy());
        if path.is_dir() {
            walk(&path, &name, files)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let file = Entry::new(path, name)?;
            if file.bytes <= FILE_BYTES {
                files.push(file);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n\
                       [[package]]\nname = \"b\"\nversion = \"0.2.0\"\n";

    fn registry(hash: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a-1.0.0/src/lib.rs", "a-1.0.0/src/x/y.rs", "b-0.2.0/lib.rs", "c-1.0.0/c.rs"] {
            let path = dir.path().join(hash).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "0123456789").unwrap();
        }
        dir
    }

    fn names(files: &[Entry]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn the_order_does_not_depend_on_where_the_registry_lies() {
        let (one, two) = (registry("index-1"), registry("other-2"));
        let files = below(one.path(), TWO, 1000).unwrap();
        assert_eq!(names(&files), names(&below(two.path(), TWO, 1000).unwrap()));
        let all: BTreeSet<_> = names(&files).into_iter().collect();
        let expected = ["a-1.0.0/src/lib.rs", "a-1.0.0/src/x/y.rs", "b-0.2.0/lib.rs"];
        assert_eq!(all, expected.into_iter().collect());
    }

    #[test]
    fn the_bound_in_bytes_is_kept() {
        let dir = registry("index-1");
        let files = below(dir.path(), TWO, 25).unwrap();
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn without_a_registry_the_error_says_what_to_do() {
        let error = below(Path::new("/nowhere"), TWO, 25).unwrap_err().to_string();
        assert!(error.contains("/nowhere; name a folder with --data DIR"), "{error}");
    }

    #[test]
    fn the_lock_file_of_this_tool_is_understood() {
        let names = crates(LOCK);
        assert!(names.iter().any(|name| name.starts_with("serde-1.")));
        assert!(names.iter().all(|name| !name.contains("-sys-")));
    }

    #[test]
    fn what_only_an_optional_part_brings_is_no_text() {
        let with = "[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n\
                    dependencies = [\n \"a 1.0.0\",\n \"mpi\",\n]\n\n\
                    [[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"r\"\n\n\
                    [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nsource = \"r\"\n\n\
                    [[package]]\nname = \"mpi\"\nversion = \"0.8.2\"\nsource = \"r\"\n\
                    dependencies = [\n \"a 2.0.0\",\n \"b\",\n]\n\n\
                    [[package]]\nname = \"b\"\nversion = \"0.2.0\"\nsource = \"r\"\n";
        let expected = ["a-1.0.0", "own-1.0.0"].map(String::from);
        assert_eq!(crates(with), expected.into_iter().collect());
        let own = crates(LOCK);
        assert!(LOCK.contains("\"bindgen\"") && !own.contains("bindgen-0.72.1"));
        assert!(own.iter().any(|name| name.starts_with("itertools-0.14")));
        assert!(!own.contains("itertools-0.13.0") && !own.contains("mpi-0.8.2"));
    }
}
