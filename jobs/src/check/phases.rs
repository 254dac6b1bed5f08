//! Phases of a run: their names, lengths, rates, rotations and what they read.

use super::{
    Places,
    parts::{batch, losses, not_positive},
    paths::{self, Paths},
    rate::rate,
};
use crate::{
    code, explain,
    job::{Job, PhaseSpec, Train},
    report::Finding,
};

/// Everything about phases that needs no model.
pub fn phases(job: &Job, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, train) in job.learners() {
        let path = format!("actors.{name}.phases");
        if places.sound(&[&path]) {
            findings.extend(lengths(&train.phases, &path, places));
            findings.extend(names(&train.phases, &path, places));
        }
    }
    findings.extend(end(job, places));
    let all = paths::all(job, places).into_iter();
    let found = all.map(|paths| {
        let found = settings(job, &paths, places);
        (paths, found)
    });
    findings.extend(paths::told(found.collect()));
    findings
}

/// A run must end: at `stop`, or with its last phase.
fn end(job: &Job, places: Places<'_>) -> Option<Finding> {
    let has_end = |(name, train): (&str, &Train)| {
        !train.phases.is_empty() || !places.sound(&[&format!("actors.{name}.phases")])
    };
    if job.stop.is_some() || job.learners().any(has_end) || !places.sound(&["stop"]) {
        return None;
    }
    let tree = places.tree;
    let opening = tree.name().map_or(tree.span.first(), |word| word.span);
    let finding = Finding::new(code::MISSING, "field `stop` is missing in Job").at(opening, "");
    Some(finding.help(format!("insert `{}`", explain::line("stop"))))
}

fn lengths(phases: &[PhaseSpec], path: &str, places: Places<'_>) -> Vec<Finding> {
    let empty = phases.iter().enumerate().filter(|(_, phase)| phase.tokens.0 == 0);
    empty.map(|(at, _)| not_positive(&format!("{path}.{at}.tokens"), "0", places)).collect()
}

/// Names that name one phase.
fn names(phases: &[PhaseSpec], path: &str, places: Places<'_>) -> Vec<Finding> {
    let place = |at: usize| places.of(&format!("{path}.{at}.name"));
    let mut findings = Vec::new();
    for (at, phase) in phases.iter().enumerate() {
        if phase.name.trim().is_empty() {
            let finding = Finding::new(code::VALUE, "expected the name of a phase, got \"\"");
            findings.push(finding.at(place(at), ""));
        } else if let Some(first) = phases[..at].iter().position(|it| it.name == phase.name) {
            let message = format!("two phases are called `{}`", phase.name);
            let finding = Finding::new(code::CLASH, message).at(place(at), "the second");
            findings.push(finding.at(place(first), "the first"));
        }
    }
    findings
}

/// What one phase reads, how much at a time, at which rate, with which rotation.
fn settings(job: &Job, paths: &Paths<'_>, places: Places<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if paths.sound(&["loss"]) {
        findings.extend(losses(job, paths, places));
    }
    if paths.sound(&["batch", "context"]) {
        findings.extend(batch(paths, places));
    }
    if paths.sound(&["lr", "batch"]) {
        findings.extend(rate(paths, places));
    }
    if paths.sound(&["yarn"]) {
        findings.extend(rotation(paths, places));
    }
    findings
}

fn rotation(paths: &Paths<'_>, places: Places<'_>) -> Option<Finding> {
    let (field, got, expected) = paths.train.yarn.as_ref()?.out_of_range()?;
    let name = field.rsplit('.').next().unwrap_or(field);
    let message = format!("`{name}` is {got}; expected {expected}");
    Some(Finding::new(code::VALUE, message).at(places.of(&paths.of(field)), ""))
}
