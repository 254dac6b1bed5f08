//! Whether a cluster is one, and the plan fits it.

use super::{
    Places,
    parts::not_positive,
    paths::{self, Paths},
};
use crate::{code, job::Job, report::Finding};

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
        let all = paths::all(job, places).into_iter();
        let found = all.map(|paths| {
            let found = ranks(&paths, places).into_iter().collect();
            (paths, found)
        });
        findings.extend(paths::told(found.collect()));
    }
    findings
}

fn ranks(paths: &Paths<'_>, places: Places<'_>) -> Option<Finding> {
    let job = &paths.phase.job;
    let gpus = job.cluster.as_ref()?.plain().ranks()?;
    let mesh = job.chosen_plan()?.mesh;
    let ranks = mesh.pp.saturating_mul(mesh.ep).saturating_mul(mesh.dp);
    let path = format!("{}.mesh", paths.plan());
    if ranks <= gpus || !places.sound(&[&path]) {
        return None;
    }
    let message = format!("the plan has {ranks} ranks, the cluster {gpus} GPUs");
    let finding = Finding::new(code::RANKS, message).at(places.of(&path), "pp * ep * dp");
    Some(finding.at(places.of("cluster"), "the cluster is from here"))
}

#[cfg(test)]
mod tests {
    use crate::{Request, library, load};

    fn said(sets: &[&str]) -> Result<usize, String> {
        let sets = sets.iter().map(|set| set.to_string()).collect();
        let request = Request { job: "k2-nano".into(), sets, ..Request::default() };
        let loaded = load(&request).map_err(|report| report.to_string())?;
        Ok(loaded.job.cluster.unwrap().plain().ranks().unwrap_or(usize::MAX))
    }

    #[test]
    fn clusters_that_ship_have_the_gpus_in_their_names() {
        for (name, _) in library::CLUSTERS {
            let gpus = name.rsplit('x').next().unwrap().parse().unwrap();
            assert_eq!(said(&[&format!("cluster=Preset({name:?})")]), Ok(gpus), "{name}");
        }
    }

    #[test]
    fn a_plan_of_more_ranks_than_gpus_is_refused_at_both_places() {
        let sets = ["cluster=Preset(\"h100x64\")", "cluster.nodes=1", "plan.mesh.dp=4"];
        let text = said(&sets).unwrap_err();
        assert!(text.contains("error[J209]: the plan has 16 ranks, the cluster 8 GPUs"), "{text}");
        assert!(text.contains("preset h100x64: the cluster is from here"), "{text}");
    }

    #[test]
    fn what_divides_must_be_above_zero() {
        let text = said(&["cluster=Preset(\"h100x64\")", "cluster.fabric.each=0"]).unwrap_err();
        assert!(text.contains("error[J207]: `each` is 0; expected more than 0"), "{text}");
    }
}
