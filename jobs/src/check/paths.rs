//! Where the settings of a phase stand: in the phase, in the learner, or in the job.

use super::Places;
use crate::{
    job::{Job, PlanChoice, Train},
    phase::Phase,
    report::Finding,
};

/// One phase of one learner, with the places of its settings.
pub(super) struct Paths<'t> {
    /// The phase.
    pub phase: Phase,
    /// The learner as it trains in the phase.
    pub train: Train,
    places: Places<'t>,
    /// Path of the learner.
    learner: String,
    /// Path of the phase, if the job has phases.
    own: Option<String>,
}

/// All phases of all learners; a job without phases is one phase.
pub(super) fn all<'t>(job: &Job, places: Places<'t>) -> Vec<Paths<'t>> {
    job.learners().flat_map(|(name, train)| of_learner(job, name, train, places)).collect()
}

fn of_learner<'t>(job: &Job, name: &str, train: &Train, places: Places<'t>) -> Vec<Paths<'t>> {
    let learner = format!("actors.{name}");
    let paths = |(number, phase): (usize, Phase)| {
        let spec = train.phases.get(number);
        let train = spec.map_or_else(|| train.clone(), |spec| train.during(spec));
        let own = spec.map(|_| format!("{learner}.phases.{number}"));
        Paths { phase, train, places, learner: learner.clone(), own }
    };
    job.phases_of(name, train).into_iter().enumerate().map(paths).collect()
}

impl Paths<'_> {
    /// Path of a field of the learner, which is the phase's if it has that field.
    pub fn of(&self, field: &str) -> String {
        let first = field.split('.').next().unwrap_or(field);
        match &self.own {
            Some(own) if self.has(own, first) => format!("{own}.{field}"),
            _ => format!("{}.{field}", self.learner),
        }
    }

    /// Path of the plan, or of a field of it.
    pub fn plan(&self) -> String {
        match (&self.phase.job.plan, &self.own) {
            (PlanChoice::Named(name), _) => format!("plans.{name}"),
            (PlanChoice::Inline(_), Some(own)) if self.has(own, "plan") => format!("{own}.plan"),
            (PlanChoice::Inline(_), _) => "plan".into(),
        }
    }

    fn has(&self, own: &str, field: &str) -> bool {
        self.places.tree.at(&format!("{own}.{field}")).is_some()
    }

    /// Whether every value at and below these fields is as its author wrote it, or left out.
    pub fn sound(&self, fields: &[&str]) -> bool {
        fields.iter().all(|field| self.places.sound(&[&self.of(field)]))
    }

    /// The finding, with the phase that it is about.
    pub fn told(&self, finding: Finding) -> Finding {
        match &self.own {
            Some(own) => finding.at(self.places.of(&format!("{own}.name")), "in this phase"),
            None => finding,
        }
    }
}

/// Leaves out what has been found of an earlier phase.
pub(super) fn distinct(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |other: &&Finding| {
            let first = |it: &Finding| it.places.first().map(|place| place.span);
            other.code == finding.code
                && other.message == finding.message
                && first(other) == first(&finding)
        };
        if kept.iter().find(same).is_none() {
            kept.push(finding);
        }
    }
    kept
}
