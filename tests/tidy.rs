//! Rules of the house that a compiler cannot check.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the bottom up; a crate may depend on those before it and on nothing else of ours.
const LAYERS: [&str; 5] = ["kernels", "ops", "graphs", "runtime", "jobs"];

/// Lines of a function's body, and of a file before its tests.
const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn files(folder: &Path, all: &mut Vec<(String, String)>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            all.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Files of a crate, without those that hold tests alone.
fn sources(layer: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    files(&root().join(layer).join("src"), &mut all);
    all.retain(|(name, _)| !name.ends_with("/tests.rs"));
    all
}

fn everything() -> Vec<(String, String)> {
    LAYERS.iter().flat_map(|layer| sources(layer)).collect()
}

/// What stands before the tests of a file.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

fn check(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn crates_only_look_down() {
    for (layer, name) in LAYERS.iter().enumerate() {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for above in &LAYERS[layer + 1..] {
            let line = format!("{above}.workspace");
            assert!(!manifest.contains(&line), "{name} must not depend on {above}");
        }
    }
}

#[test]
fn graphs_is_pure() {
    let banned = ["kernels::", "std::fs", "std::thread", "std::time", "HashMap", "HashSet"];
    let wrong = sources("graphs").into_iter().flat_map(|(name, text)| {
        let code = code(&text).to_string();
        let hits = banned.iter().filter(move |word| code.contains(**word));
        hits.map(move |word| format!("{name} uses {word}")).collect::<Vec<_>>()
    });
    check(wrong.collect());
}

#[test]
fn the_runtime_knows_no_job_file() {
    let manifest = fs::read_to_string(root().join("runtime/Cargo.toml")).unwrap();
    assert!(!manifest.contains("ron"), "job files are read in jobs alone");
    let names = ["GPipe", "OneFOneB", "Interleaved", "LoopedBfs", "ZbH", "ZbV", "DualPipe"];
    let wrong = sources("runtime").into_iter().filter_map(|(file, text)| {
        let name = names.iter().find(|name| code(&text).contains(**name))?;
        Some(format!("{file} knows the schedule {name}"))
    });
    check(wrong.collect());
}

#[test]
fn unsafe_stands_only_in_kernels_and_says_why() {
    let mut wrong = Vec::new();
    for (name, text) in everything() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let is_code = !line.trim_start().starts_with("//");
            let is_unsafe = line.contains("unsafe {") || line.contains("unsafe fn");
            if !is_code || !is_unsafe {
                continue;
            }
            let above = &lines[number.saturating_sub(8)..number];
            let said = above.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
            if !name.starts_with("kernels/") || !said {
                wrong.push(format!("{name}:{} unsafe without leave or reason", number + 1));
            }
        }
    }
    check(wrong);
}

/// CUDA sources, and the C++ that emulates a driver for them.
fn cuda_sources() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut folders = vec![root().join("kernels/src"), root().join("kernels/tests/shim")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if matches!(ending, Some("cu" | "cuh" | "cpp" | "h")) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                all.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

#[test]
fn cuda_sources_keep_the_same_walls() {
    let (mut wrong, all) = (Vec::new(), cuda_sources());
    assert!(20 < all.len(), "only {} sources", all.len());
    for (name, text) in all {
        let lines = text.lines().count();
        if FILE_LINES < lines || !text.starts_with("// ") {
            wrong.push(format!("{name} has {lines} lines, or does not say what it is for"));
        }
        let mut begin = None;
        for (number, line) in text.lines().enumerate() {
            if 100 < line.chars().count() {
                wrong.push(format!("{name}:{} is wider than 100 columns", number + 1));
            }
            // A body begins at the end of an unindented head and ends with an unindented brace.
            if line.ends_with('{') && begin.is_none() && !line.starts_with("namespace") {
                begin = Some(number);
            } else if line == "}" || line == "};" {
                let begin = begin.take().unwrap_or(number);
                if FUNCTION_LINES < number - begin {
                    wrong.push(format!("{name}:{} has {} lines", begin + 1, number - begin));
                }
            }
        }
        if text.contains("#include") && name.starts_with("kernels/src/") {
            wrong.push(format!("{name} includes a header, which users would have to have"));
        }
    }
    check(wrong);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (name, text) in everything() {
        let lines = code(&text).lines().count();
        if FILE_LINES < lines {
            wrong.push(format!("{name} has {lines} lines before its tests"));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not say what it is for"));
        }
        for (number, line) in text.lines().enumerate() {
            if 100 < line.chars().count() && !line.contains("r\"") && !line.contains('"') {
                wrong.push(format!("{name}:{} is wider than 100 columns", number + 1));
            }
        }
    }
    check(wrong);
}

#[test]
fn functions_fit_a_screen() {
    let mut wrong = Vec::new();
    for (name, text) in everything() {
        let mut open: Option<(usize, String, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line[..line.len() - line.trim_start().len()].to_string();
            let head = line.trim_start();
            let starts = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn "];
            if open.is_none() && starts.iter().any(|s| head.starts_with(s)) {
                open = Some((number, indent.clone(), head.to_string()));
            }
            let ends = head == "}" || head.ends_with(" }") || head.ends_with(';');
            let closed = open.as_ref().is_some_and(|(begin, own, _)| {
                *own == indent && ends && (head == "}" || *begin == number)
            });
            if closed {
                let (begin, _, head) = open.take().unwrap();
                if FUNCTION_LINES < number - begin {
                    wrong.push(format!("{name}:{} {} lines: {head}", begin + 1, number - begin));
                }
            }
        }
    }
    check(wrong);
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "dbg!(", "TODO", "FIXME", "allow(dead_code"];
    let wrong = everything().into_iter().flat_map(|(name, text)| {
        let hits = marks.iter().filter(move |mark| text.contains(**mark));
        hits.map(move |mark| format!("{name} has {mark}")).collect::<Vec<_>>()
    });
    check(wrong.collect());
}
