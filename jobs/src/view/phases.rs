//! The phases of a run, a line for each.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{phase::Phase, view::progress::grouped};

/// Columns before the text of a line.
const MARGIN: &str = "          ";

/// A line for each phase; the one that is looked at, if one is, has a mark.
pub fn table(phases: &[Phase], at: Option<usize>) -> String {
    let name = |phase: &Phase| phase.name.clone().unwrap_or_default();
    let width = phases.iter().map(|it| name(it).chars().count()).max().unwrap_or(0);
    let mut page = String::new();
    for (number, phase) in phases.iter().enumerate() {
        let head = if number == 0 { "phases    " } else { MARGIN };
        let mark = if at == Some(number) { '>' } else { ' ' };
        let (name, text) = (name(phase), line(phase));
        let _ = writeln!(page, "{head}{mark} {name:width$}  {text}");
    }
    page
}

/// What a phase does, in one line.
fn line(phase: &Phase) -> String {
    let (_, train) = phase.job.learner();
    let (first, last) = phase.rates();
    let mut text = format!(
        "{} steps of {} x {} tokens, lr {first:.2e} -> {last:.2e}",
        grouped(phase.steps()),
        grouped(train.sequences() as u64),
        grouped(train.context.0),
    );
    if let Some(yarn) = &train.yarn {
        let _ = write!(text, ", YaRN {} x {}", yarn.factor, grouped(yarn.original as u64));
    }
    if let Some(plan) = phase.job.plan_name() {
        let _ = write!(text, ", plan `{plan}`");
    }
    text
}

/// The same for other programs.
pub fn figures(phase: &Phase) -> Value {
    let (_, train) = phase.job.learner();
    let (first, last) = phase.rates();
    json!({
        "name": phase.name,
        "begin": phase.begin,
        "steps": phase.steps(),
        "tokens": phase.tokens_at_end() - phase.tokens,
        "sequences": train.sequences(),
        "context": train.context.0,
        "lr": [first, last],
        "plan": phase.job.plan_name(),
    })
}
