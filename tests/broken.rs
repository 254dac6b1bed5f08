//! Broken jobs and the error page of each; `BLESS=1` rewrites the pages.
//!
//! A job may begin with lines `// --plan NAME`, `// --phase NAME` and `// --set PATH=VALUE`, which
//! are its arguments.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jobs::{Request, load, load_resolved};
use proptest::prelude::*;

/// Tests of a crate run in its folder, so this path is the same on every machine.
const FOLDER: &str = "../tests/broken";

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "ron")).collect();
    cases.sort();
    cases
}

fn request(path: &Path, text: &str) -> Request {
    let mut request = Request { job: path.to_str().unwrap().into(), ..Request::default() };
    for line in text.lines() {
        if let Some(plan) = line.strip_prefix("// --plan ") {
            request.plan = Some(plan.into());
        }
        if let Some(phase) = line.strip_prefix("// --phase ") {
            request.phase = Some(phase.into());
        }
        if let Some(set) = line.strip_prefix("// --set ") {
            request.sets.push(set.into());
        }
    }
    request
}

#[test]
fn every_broken_job_has_its_error_page() {
    let cases = cases();
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for path in cases {
        let text = fs::read_to_string(&path).unwrap();
        let page = match load(&request(&path, &text)) {
            Ok(_) => "no mistake was found\n".to_string(),
            Err(report) => report.human(false),
        };
        let beside = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, &page).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if page != expected || page.starts_with("no mistake") {
            wrong.push(format!("{}\nexpected\n{expected}\ngot\n{page}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nBLESS=1 rewrites the pages", wrong.join("\n"));
}

#[test]
fn every_code_of_an_error_page_is_explained_and_its_json_says_the_same() {
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        let Err(report) = load(&request(&path, &text)) else { panic!("{}", path.display()) };
        let json = report.json();
        let errors = json["errors"].as_array().unwrap();
        assert_eq!(errors.len(), report.findings.len());
        for (error, finding) in errors.iter().zip(&report.findings) {
            assert_eq!(error["code"], finding.code);
            assert_eq!(error["message"], finding.message);
            assert!(!finding.places.is_empty(), "{}: {finding:?}", path.display());
            assert_eq!(jobs::explain::find(finding.code).len(), 1, "{}", finding.code);
        }
    }
}

fn whole() -> String {
    let request = Request { job: "k2-nano".into(), ..Request::default() };
    load(&request).unwrap_or_else(|report| panic!("{report}")).text()
}

/// Pieces that jobs are made of, to be put where they do not belong.
const PIECES: &[&str] = &[
    "(", ")", "[", "]", "{", "}", ",", ":", "\"", "'", "/*", "#", "-", "1e", "é", "Some(", "0x",
    "\\",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_mutated_job_is_read_or_refused_but_never_crashes(
        edits in prop::collection::vec((0.0..1.0f64, 0usize..12, 0..PIECES.len()), 1..6),
    ) {
        let mut text = whole();
        for (place, removed, piece) in edits {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let start = (place * places.len() as f64) as usize;
            let end = (start + removed).min(places.len() - 1);
            let range = places[start.min(end)]..places[end];
            text.replace_range(range, PIECES[piece]);
        }
        if let Err(report) = load_resolved(&text) {
            prop_assert!(!report.findings.is_empty());
            prop_assert!(!report.human(true).is_empty() && report.json()["errors"].is_array());
        }
    }

    #[test]
    fn any_argument_is_applied_or_refused_but_never_crashes(
        path in "[a-z.\"0-9é]{0,20}", value in "\\PC{0,20}",
    ) {
        let sets = vec![format!("{path}={value}"), format!("plan.{path}={value}")];
        let request = Request { job: "k2-nano".into(), sets, ..Request::default() };
        if let Err(report) = load(&request) {
            prop_assert!(!report.human(false).is_empty());
        }
    }
}
