//! The phases of a run, a line for each.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{job::Job, phase::Phase, view::progress::grouped};

/// Columns before the text of a line.
const MARGIN: &str = "          ";

/// A line for each phase of a job; the one that is looked at, if one is, has a mark.
pub fn table(whole: &Job, phases: &[Phase], at: Option<usize>) -> String {
    let name = |phase: &Phase| phase.name.clone().unwrap_or_default();
    let width = phases.iter().map(|it| name(it).chars().count()).max().unwrap_or(0);
    let mut page = String::new();
    for (number, phase) in phases.iter().enumerate() {
        let head = if number == 0 { "phases    " } else { MARGIN };
        let mark = if at == Some(number) { '>' } else { ' ' };
        let (name, text) = (name(phase), line(whole, phase));
        let _ = writeln!(page, "{head}{mark} {name:width$}  {text}");
    }
    page
}

/// What a phase does, in one line.
fn line(whole: &Job, phase: &Phase) -> String {
    let (_, train) = phase.job.learner();
    let mut text = format!(
        "{} steps of {} x {} tokens, lr {}",
        grouped(phase.steps()),
        grouped(train.sequences() as u64),
        grouped(train.context.0),
        match phase.rates() {
            (first, last) if first == last => rate(last),
            (first, last) => format!("{} -> {}", rate(first), rate(last)),
        },
    );
    if let Some(yarn) = &train.yarn {
        let reach = (yarn.original as f64 * yarn.factor).round() as u64;
        let _ = write!(text, ", YaRN to {} tokens", grouped(reach));
    }
    if phase.job.plan != whole.plan {
        let plan = phase.job.plan_name().map(|name| format!("plan `{name}`"));
        let _ = write!(text, ", {}", plan.as_deref().unwrap_or("a plan of its own"));
    }
    text
}

/// A learning rate, as the progress of a run shows it.
fn rate(rate: f64) -> String {
    if rate == 0.0 { "0".into() } else { format!("{rate:.2e}") }
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
