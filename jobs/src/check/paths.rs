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

    /// Whether the phase has this field itself.
    pub fn is_own(&self, field: &str) -> bool {
        self.own.as_ref().is_some_and(|own| self.has(own, field))
    }

    /// Path of the plan.
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
    fn told(&self, finding: Finding) -> Finding {
        match &self.own {
            Some(own) => finding.at(self.places.of(&format!("{own}.name")), "in this phase"),
            None => finding,
        }
    }
}

/// What was found in the phases, each mistake once: with the first phase that has it, or without
/// if all have it, since then it is the learner's or the job's.
pub(super) fn told(found: Vec<(Paths<'_>, Vec<Finding>)>) -> Vec<Finding> {
    let having = |finding: &Finding| {
        let has = |(_, others): &&(Paths<'_>, Vec<Finding>)| others.contains(finding);
        found.iter().filter(has).count()
    };
    let mut told: Vec<(&Finding, Finding)> = Vec::new();
    for (paths, findings) in &found {
        for finding in findings {
            if told.iter().all(|(other, _)| *other != finding) {
                let is_common = having(finding) == found.len();
                let text = if is_common { finding.clone() } else { paths.told(finding.clone()) };
                told.push((finding, text));
            }
        }
    }
    told.into_iter().map(|(_, finding)| finding).collect()
}
