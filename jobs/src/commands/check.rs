//! `check`: everything about a job that can be known without running it.

use serde_json::json;

use crate::{
    consequences::{Expectation, consequences, expectations},
    exit::Failure,
    load::Loaded,
    report::SCHEMA,
    view::progress::grouped,
};

/// An expectation of the job is broken.
const BROKEN: u8 = 4;

/// Says that a loaded job is sound, and how big it is; its expectations are worked out.
///
/// # Errors
///
/// Code 4 with every expectation that the plan breaks.
pub fn check(loaded: &Loaded, as_json: bool) -> Result<String, Failure> {
    let broken = broken(loaded)?;
    if broken.is_empty() { Ok(sound(loaded, as_json)) } else { Err(failure(&broken)) }
}

/// Expectations that the plan breaks; a job without any is not priced.
fn broken(loaded: &Loaded) -> Result<Vec<Expectation>, Failure> {
    if loaded.job.expect == Default::default() {
        return Ok(Vec::new());
    }
    let mut all = expectations(&loaded.job, &consequences(loaded, None)?);
    all.retain(|it| !it.is_kept);
    Ok(all)
}

fn failure(broken: &[Expectation]) -> Failure {
    let line = |it: &Expectation| format!("{} {}: the plan has {}", it.field, it.bound, it.found);
    let lines: Vec<String> = broken.iter().map(line).collect();
    let text = format!("expectations are broken\n  {}", lines.join("\n  "));
    Failure { code: BROKEN, text }
}

fn sound(loaded: &Loaded, as_json: bool) -> String {
    let job = &loaded.job;
    let parameters = loaded.graph.parameters().iter().map(|it| it.elements() as u64).sum::<u64>();
    let plans = job.plans.len();
    if as_json {
        let answer = json!({
            "schema": SCHEMA,
            "job": job.name,
            "errors": [],
            "parameters": parameters,
            "plan": job.plan_name(),
            "plans": plans,
            "steps": job.steps(),
        });
        return format!("{answer}\n");
    }
    let plan = job.plan_name().map_or(String::new(), |name| format!(" under plan `{name}`"));
    let parameters = grouped(parameters);
    format!("{}: sound{plan}, {parameters} parameters, {} steps\n", job.name, job.steps())
}
