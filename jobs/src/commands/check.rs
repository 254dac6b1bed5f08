//! `check`: everything about a job that can be known without running it.

use serde_json::{Value, json};

use crate::{
    consequences::{Expectation, consequences, expectations},
    exit::Failure,
    load::Loaded,
    memory,
    report::SCHEMA,
    view::{
        phases::{figures, table},
        progress::grouped,
    },
};

/// An expectation of the job is broken.
const BROKEN: u8 = 4;

/// Says that a loaded job is sound in all its phases, and how big it is; its expectations are
/// worked out.
///
/// # Errors
///
/// Code 13 if a plan does not fit its devices, or 4 with every expectation that a plan breaks.
pub fn check(loaded: &Loaded, as_json: bool) -> Result<String, Failure> {
    for one in loaded.each_phase() {
        let one = one?;
        let fits = memory::fits_devices(&one.job, &one.graph, &one.plan);
        fits.map_err(|failure| failure.in_phase(one.phase().name.as_deref()))?;
    }
    let broken = broken(loaded)?;
    if broken.is_empty() { Ok(sound(loaded, as_json)) } else { Err(failure(&broken)) }
}

/// Expectations that the plan of a phase breaks; a job without any is not priced.
fn broken(loaded: &Loaded) -> Result<Vec<(Option<String>, Expectation)>, Failure> {
    if loaded.job.expect == Default::default() {
        return Ok(Vec::new());
    }
    let mut broken = Vec::new();
    for one in loaded.each_phase() {
        let one = one?;
        let all = expectations(&one.job, &consequences(&one, None)?).into_iter();
        let name = &one.phase().name;
        broken.extend(all.filter(|it| !it.is_kept).map(|it| (name.clone(), it)));
    }
    Ok(broken)
}

fn failure(broken: &[(Option<String>, Expectation)]) -> Failure {
    let line = |(phase, it): &(Option<String>, Expectation)| {
        let phase = phase.as_ref().map_or(String::new(), |name| format!("phase `{name}`: "));
        format!("{phase}{} {}: the plan has {}", it.field, it.bound, it.found)
    };
    let lines: Vec<String> = broken.iter().map(line).collect();
    let text = format!("expectations are broken\n  {}", lines.join("\n  "));
    Failure { code: BROKEN, text }
}

fn sound(loaded: &Loaded, as_json: bool) -> String {
    let (job, steps) = (&loaded.whole, loaded.whole.steps());
    let parameters = loaded.graph.parameters().iter().map(|it| it.elements() as u64).sum::<u64>();
    let plans = job.plans.len();
    if as_json {
        let mut answer = json!({
            "schema": SCHEMA,
            "job": job.name,
            "errors": [],
            "parameters": parameters,
            "plan": job.plan_name(),
            "plans": plans,
            "steps": steps,
        });
        if job.has_phases() {
            answer["phases"] = loaded.phases.iter().map(figures).collect::<Vec<Value>>().into();
        }
        return format!("{answer}\n");
    }
    let plan = job.plan_name().map_or(String::new(), |name| format!(" under plan `{name}`"));
    let parameters = grouped(parameters);
    let mut page = format!("{}: sound{plan}, {parameters} parameters, {steps} steps\n", job.name);
    if job.has_phases() {
        page += &table(job, &loaded.phases, None);
    }
    page
}
