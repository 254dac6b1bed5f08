//! Whether a cluster is one, and the plan fits it.

use super::{Places, parts::not_positive};
use crate::{
    code,
    job::{Job, PlanChoice},
    report::Finding,
};

/// Numbers of the cluster, and the ranks of the plan.
pub fn cluster(job: &Job, places: Places<'_>) -> Vec<Finding> {
    let Some(cluster) = &job.cluster else { return Vec::new() };
    if !places.sound(&["cluster"]) {
        return Vec::new();
    }
    let wrong = cluster.positives().into_iter();
    let wrong = wrong.filter(|(_, value)| !(value.is_finite() && *value > 0.0));
    let mut findings: Vec<Finding> = wrong
        .map(|(path, got)| not_positive(&format!("cluster.{path}"), &got.to_string(), places))
        .collect();
    if findings.is_empty() {
        findings.extend(ranks(job, places));
    }
    findings
}

fn ranks(job: &Job, places: Places<'_>) -> Option<Finding> {
    let gpus = job.cluster.as_ref()?.plain().ranks()?;
    let mesh = job.chosen_plan()?.mesh;
    let ranks = mesh.pp.saturating_mul(mesh.ep).saturating_mul(mesh.dp);
    let path = match &job.plan {
        PlanChoice::Named(name) => format!("plans.{name}.mesh"),
        PlanChoice::Inline(_) => "plan.mesh".to_string(),
    };
    if ranks <= gpus || !places.sound(&[&path]) {
        return None;
    }
    let message = format!("the plan has {ranks} ranks, the cluster {gpus} GPUs");
    let finding = Finding::new(code::RANKS, message).at(places.of(&path), "pp * ep * dp");
    Some(finding.at(places.of("cluster"), "the cluster is from here"))
}
