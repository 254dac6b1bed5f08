//! Rules between the fields of a job, which types cannot say.

mod cluster;
mod model;
mod optimizer;
mod parts;
mod paths;
mod phases;
mod rate;

use graphs::{ModelGraph, Plan};

use crate::{
    de::Poison,
    job::Job,
    phase::Phase,
    report::Finding,
    source::Span,
    tree::{Value, Word},
};

/// What came of the checks.
#[derive(Debug, Default)]
pub struct Checked {
    /// Every rule that is broken.
    pub findings: Vec<Finding>,
    /// The model and the plan of each phase; none unless all could be made.
    pub lowered: Vec<Lowered>,
}

/// A phase with its model and its plan.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The phase.
    pub phase: Phase,
    /// Its model as a graph.
    pub graph: ModelGraph,
    /// Its plan.
    pub plan: Plan,
}

/// Checks a job; the tree says where its values stand, the poison which of them are invented.
///
/// A rule about an invented value is not checked: its mistake has been reported already.
pub fn check(job: &Job, tree: &Value, poison: &Poison) -> Checked {
    let places = Places { tree, poison };
    let mut checked = Checked::default();
    if poison.has(tree.span) {
        return checked;
    }
    checked.findings.extend(parts::name(job, places));
    checked.findings.extend(parts::actors(job, places));
    checked.findings.extend(parts::numbers(job, places));
    checked.findings.extend(phases::phases(job, places));
    checked.findings.extend(optimizer::ranges(job, places));
    checked.findings.extend(parts::plan_names(job, places));
    checked.findings.extend(cluster::cluster(job, places));
    model::lower(job, places, &mut checked);
    checked
}

/// Where the values of a job stand.
#[derive(Clone, Copy)]
struct Places<'t> {
    tree: &'t Value,
    poison: &'t Poison,
}

impl Places<'_> {
    /// Whether every value at and below these paths is as its author wrote it, or left out.
    fn sound(&self, paths: &[&str]) -> bool {
        paths.iter().all(|path| match (self.tree.at(path), path.rsplit_once('.')) {
            (Some(value), _) => !self.poison.spoils(value),
            (None, Some((record, field))) => {
                let record = self.tree.at(record);
                record.is_none_or(|record| {
                    !self.poison.has(record.span) && !self.poison.misses(record, field)
                })
            }
            (None, None) => !self.poison.misses(self.tree, path),
        })
    }

    /// The place of a field, or of what it should stand in.
    fn of(&self, path: &str) -> Span {
        let value = self.tree.nearest(path);
        match value.name() {
            Some(Word { span, .. }) if self.tree.at(path).is_none() => *span,
            _ => value.span,
        }
    }
}
