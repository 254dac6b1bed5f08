//! The model and the plan, built and lowered as a run would.

use graphs::{ModelError, ModelGraph, PlanError, lower as lower_plan};
use runtime::error::chain;

use super::{
    Checked, Lowered, Places,
    paths::{self, Paths},
};
use crate::{
    code, huggingface,
    job::{Job, Model},
    report::Finding,
};

/// Builds the model and lowers it in every phase, as far as the job allows.
pub fn lower(job: &Job, places: Places<'_>, checked: &mut Checked) {
    if !places.sound(&["model"]) {
        return;
    }
    let graph = match graph(job, places) {
        Err(findings) => return checked.findings.extend(findings),
        Ok(graph) => graph,
    };
    let mut lowered: Vec<Lowered> = Vec::new();
    let mut found = Vec::new();
    for paths in paths::all(job, places) {
        let one = phase(&graph, &paths, places, &lowered);
        let findings = one.map(|phase| lowered.push(phase)).err().unwrap_or_default();
        found.push((paths, findings));
    }
    if lowered.len() == found.len() {
        checked.lowered = lowered;
    }
    checked.findings.extend(paths::told(found));
}

/// One phase, lowered; no finding if one that has been made already stands in the way.
fn phase(
    graph: &ModelGraph,
    paths: &Paths<'_>,
    places: Places<'_>,
    others: &[Lowered],
) -> Result<Lowered, Vec<Finding>> {
    let (phase, train) = (&paths.phase, &paths.train);
    let spec = phase.job.chosen_plan().ok_or_else(Vec::new)?;
    let is_sound = places.sound(&[&paths.plan()])
        && paths.sound(&["batch", "context", "lanes", "yarn"])
        && train.context.0 > 0
        && train.batch.0 > 0
        && train.batch.0.is_multiple_of(train.context.0)
        && train.lanes != Some(0);
    if !is_sound {
        return Err(Vec::new());
    }
    let graph = match &train.yarn {
        None => graph.clone(),
        Some(yarn) => graph.stretched(yarn).ok_or_else(|| vec![no_rotation(paths, places)])?,
    };
    let batch = train.cut(spec);
    // Rates and rotations change no plan, so phases often share one.
    let same = |it: &&Lowered| it.plan.batch == batch && it.phase.job.plan() == spec;
    let plan = match others.iter().find(same) {
        Some(other) => Ok(other.plan.clone()),
        None => lower_plan(&graph, spec, batch),
    };
    let refused = |errors: Vec<PlanError>| {
        errors.iter().map(|error| plan_error(error, paths, places)).collect::<Vec<_>>()
    };
    Ok(Lowered { phase: phase.clone(), graph, plan: plan.map_err(refused)? })
}

fn no_rotation(paths: &Paths<'_>, places: Places<'_>) -> Finding {
    let message = "`yarn` stretches the rotation of MlaAttention, and the model has none";
    let finding = Finding::new(code::CLASH, message).at(places.of(&paths.of("yarn")), "");
    finding.at(places.of("model"), "the model is from here")
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

fn plan_error(error: &PlanError, paths: &Paths<'_>, places: Places<'_>) -> Finding {
    let path = match error.path().strip_prefix("plan.") {
        Some(rest) => format!("{}.{rest}", paths.plan()),
        None => paths.of(error.path()),
    };
    let mut finding = Finding::new(error.code(), error.to_string()).at(places.of(&path), "");
    if error.path() == "batch" && paths.is_own("context") {
        finding = finding.at(places.of(&paths.of("context")), "`context` is from here");
    }
    if let (PlanError::Experts { experts, .. }, Model::Decoder(_)) = (error, &paths.phase.job.model)
    {
        let label = format!("`experts: {experts}` is from here");
        finding = finding.at(places.of("model.experts"), label);
    }
    match error.help() {
        Some(help) => finding.help(help),
        None => finding,
    }
}
