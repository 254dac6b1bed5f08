//! Hangs of other programs, re-enacted: refused with a story, and accepted once fixed.
//!
//! Each file of the folder `hangs` says at its top what happened there and how far the re-enactment
//! goes. Jobs are `check`ed; orders are `schedule --check`ed with the credits of their line
//! `# --credits N`. What ends in `_fixed` or `_buffered` is accepted; the page of each other stands
//! beside it, and `BLESS=1` rewrites it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use graphs::{
    check::programs,
    plan::{Cargo, Instruction, Side},
};
use jobs::{Request, load};

const FOLDER: &str = "../tests/hangs";

/// Exit code of a job or of orders that are refused.
const INVALID: i32 = 3;

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let is_case = |path: &PathBuf| path.extension().is_some_and(|e| e == "ron" || e == "csv");
    let mut cases: Vec<PathBuf> = entries.filter(is_case).collect();
    cases.sort();
    cases
}

/// Exit code and complaint of `troupe` for a case.
fn troupe(case: &Path) -> (Option<i32>, String) {
    let name = case.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(case).unwrap();
    let credits = text.lines().find_map(|line| line.strip_prefix("# --credits "));
    let arguments = match credits {
        Some(credits) => vec!["schedule", "--check", name, "--credits", credits],
        None => vec!["check", name],
    };
    let output = Command::new(env!("CARGO_BIN_EXE_troupe"))
        .args(arguments)
        .current_dir(FOLDER)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Compares a page with the one on disk, which `BLESS=1` writes.
fn compare(path: &Path, page: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, page).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if page != expected {
        wrong.push(format!("{}\nexpected\n{expected}\ngot\n{page}", path.display()));
    }
}

#[test]
fn hangs_of_others_are_refused_with_a_story_and_their_fixes_accepted() {
    let (mut wrong, mut refused, mut accepted) = (Vec::new(), 0, 0);
    for case in cases() {
        let name = case.file_stem().unwrap().to_str().unwrap();
        let (code, page) = troupe(&case);
        if name.ends_with("_fixed") || name.ends_with("_buffered") {
            assert_eq!(code, Some(0), "{name}: {page}");
            accepted += 1;
        } else {
            assert_eq!(code, Some(INVALID), "{name}: {page}");
            compare(&case.with_extension("txt"), &page, &mut wrong);
            refused += 1;
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 rewrites the pages", wrong.join("\n"));
    assert!(refused >= 7 && accepted >= 9, "{refused} refused, {accepted} accepted");
}

#[test]
fn a_stage_without_experts_joins_nothing_and_a_member_that_skips_its_part_is_named() {
    let job = Path::new(FOLDER).join("megatron_1444_fixed.ron");
    let request = Request { job: job.to_str().unwrap().into(), ..Request::default() };
    let mut plan = load(&request).unwrap_or_else(|report| panic!("{report}")).plan;
    assert!(plan.chunks[0].visits.is_empty() && !plan.chunks[1].visits.is_empty());
    let of_first = |channel: &graphs::plan::Channel| channel.from.0 == 0 || channel.to.0 == 0;
    let experts = plan.channels.iter().filter(|channel| channel.cargo.fans_out());
    assert!(!experts.clone().any(of_first) && experts.count() > 0);
    assert!(plan.programs[0][Side::Experts as usize].instructions.is_empty());

    let dispatch = Cargo::Dispatch { chunk: 1, visit: 0 };
    let channel = plan.channels.iter().position(|channel| channel.cargo == dispatch).unwrap();
    let skipped = Instruction::Receive { channel, microbatch: 0 };
    let program = &mut plan.programs[1][Side::Experts as usize].instructions;
    program.retain(|&instruction| instruction != skipped);
    let errors = programs(&plan).unwrap_err();
    let page: String = errors.iter().map(|error| format!("{error}\n")).collect();
    let mut wrong = Vec::new();
    compare(&Path::new(FOLDER).join("megatron_1444.txt"), &page, &mut wrong);
    assert!(wrong.is_empty(), "{}\nBLESS=1 rewrites the page", wrong.join("\n"));
}
