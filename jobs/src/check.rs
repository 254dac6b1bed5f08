//! Rules between the fields of a job, which types cannot say.

mod model;
mod parts;

use graphs::{ModelGraph, Plan};

use crate::{
    job::Job,
    report::Finding,
    source::Span,
    tree::{Value, Word},
};

/// What came of the checks.
#[derive(Default)]
pub struct Checked {
    /// Every rule that is broken.
    pub findings: Vec<Finding>,
    /// The model, if it can be built.
    pub graph: Option<ModelGraph>,
    /// The plan, if it can be made.
    pub plan: Option<Plan>,
}

/// Checks a job; the tree says where its values stand.
pub fn check(job: &Job, tree: &Value) -> Checked {
    let places = Places { tree };
    let mut checked = Checked::default();
    checked.findings.extend(parts::actors(job, places));
    checked.findings.extend(parts::numbers(job, places));
    checked.findings.extend(parts::plan_names(job, places));
    model::lower(job, places, &mut checked);
    checked
}

/// Where the values of a job stand.
#[derive(Clone, Copy)]
struct Places<'t> {
    tree: &'t Value,
}

impl Places<'_> {
    /// The place of a field, or of what it should stand in.
    fn of(&self, path: &str) -> Span {
        let value = self.tree.nearest(path);
        match value.name() {
            Some(Word { span, .. }) if self.tree.at(path).is_none() => *span,
            _ => value.span,
        }
    }
}
