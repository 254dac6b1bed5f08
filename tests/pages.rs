//! What people see: commands on library jobs with the page each prints.
//!
//! The first line of a file is the command, the rest what it prints and, if it is not 0, the exit
//! code; `BLESS=1` rewrites the rest. Clusters are named where a page would tell of the machine.

use std::{fs, path::PathBuf, process::Command};

/// Tests of a crate run in its folder, so this path is the same on every machine.
const FOLDER: &str = "../tests/pages";

/// What stands before a command.
const PROMPT: &str = "$ troupe ";

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// The words of a command; quotes hold together what has blanks.
fn words(command: &str) -> Vec<String> {
    let quoted = command.split('\'').enumerate();
    let part = |(at, part): (usize, &str)| match at % 2 {
        0 => part.split_whitespace().map(String::from).collect(),
        _ => vec![part.to_string()],
    };
    quoted.flat_map(part).collect()
}

fn printed(command: &str) -> String {
    let mut troupe = Command::new(env!("CARGO_BIN_EXE_troupe"));
    let output = troupe.args(words(command)).current_dir(FOLDER).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let code = match output.status.code() {
        Some(0) => String::new(),
        Some(code) => format!("exit {code}\n"),
        None => "ended by a signal\n".into(),
    };
    out + &err + &code
}

#[test]
fn every_command_prints_its_page() {
    let (mut wrong, cases) = (Vec::new(), cases());
    assert!(cases.len() >= 18, "only {} pages", cases.len());
    for path in cases {
        let text = fs::read_to_string(&path).unwrap();
        let (first, expected) = text.split_once('\n').unwrap();
        let command = first.strip_prefix(PROMPT).expect("a page begins with its command");
        let page = printed(command);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, format!("{first}\n{page}")).unwrap();
        } else if page != expected {
            wrong.push(format!("{}\nexpected\n{expected}\ngot\n{page}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 rewrites the pages", wrong.join("\n"));
}
