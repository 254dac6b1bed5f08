//! The model and the plan, built and lowered as a run would.

use graphs::{ModelError, ModelGraph, PlanError, lower as lower_plan};
use runtime::error::chain;

use super::{Checked, Places};
use crate::{
    code, huggingface,
    job::{Job, Model, PlanChoice},
    report::Finding,
};

/// Builds the model and lowers it under the plan, as far as the job allows.
pub fn lower(job: &Job, places: Places<'_>, checked: &mut Checked) {
    if !places.sound(&["model"]) {
        return;
    }
    match graph(job, places) {
        Err(findings) => return checked.findings.extend(findings),
        Ok(graph) => checked.graph = Some(graph),
    }
    let learner = job.learners().next();
    let (Some((learner, train)), Some(spec), Some(graph)) =
        (learner, job.chosen_plan(), &checked.graph)
    else {
        return;
    };
    let plan = match &job.plan {
        PlanChoice::Named(name) => format!("plans.{name}"),
        PlanChoice::Inline(_) => "plan".to_string(),
    };
    let [batch, context, lanes] =
        ["batch", "context", "lanes"].map(|field| format!("actors.{learner}.{field}"));
    if !places.sound(&[&plan, &batch, &context, &lanes]) {
        return;
    }
    let is_whole = train.context.0 > 0 && train.batch.0.is_multiple_of(train.context.0);
    if !is_whole || train.batch.0 == 0 || train.lanes == Some(0) {
        return;
    }
    match lower_plan(graph, spec, job.batch(spec)) {
        Ok(plan) => checked.plan = Some(plan),
        Err(errors) => {
            let found = errors.iter().map(|error| plan_error(job, learner, error, places));
            checked.findings.extend(found);
        }
    }
}

/// The model; the shape of a folder's model is read, but not its weights.
fn graph(job: &Job, places: Places<'_>) -> Result<ModelGraph, Vec<Finding>> {
    let graph = match &job.model {
        Model::HuggingFace(folder) => match huggingface::shape(folder) {
            Ok((decoder, _)) => Model::Decoder(decoder).graph(),
            Err(error) => {
                let finding = Finding::new(code::FILE, chain(&error));
                return Err(vec![finding.at(places.of("model"), "")]);
            }
        },
        model => model.graph(),
    };
    let graph = graph.expect("folders have been read");
    graph.map_err(|errors| errors.iter().map(|error| model_error(job, error, places)).collect())
}

fn model_error(job: &Job, error: &ModelError, places: Places<'_>) -> Finding {
    let path = match (&job.model, error) {
        (Model::Decoder(_), ModelError::Field { field, .. }) => format!("model.{field}"),
        _ => "model".to_string(),
    };
    Finding::new(error.code(), error.to_string()).at(places.of(&path), "")
}

fn plan_error(job: &Job, learner: &str, error: &PlanError, places: Places<'_>) -> Finding {
    let path = match (error.path().strip_prefix("plan."), &job.plan) {
        (Some(rest), PlanChoice::Named(name)) => format!("plans.{name}.{rest}"),
        (Some(_), PlanChoice::Inline(_)) => error.path().to_string(),
        (None, _) => format!("actors.{learner}.{}", error.path()),
    };
    let mut finding = Finding::new(error.code(), error.to_string()).at(places.of(&path), "");
    if let (PlanError::Experts { experts, .. }, Model::Decoder(_)) = (error, &job.model) {
        let label = format!("`experts: {experts}` is from here");
        finding = finding.at(places.of("model.experts"), label);
    }
    match error.help() {
        Some(help) => finding.help(help),
        None => finding,
    }
}
