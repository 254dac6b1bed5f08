//! `check`: everything about a job that can be known without running it.

use serde_json::json;

use crate::{load::Loaded, report::SCHEMA, view::progress::grouped};

/// Says that a loaded job is sound, and how big it is.
pub fn check(loaded: &Loaded, as_json: bool) -> String {
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
