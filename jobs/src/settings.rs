//! What two jobs set differently, value by value.

use crate::{
    job::PlanChoice,
    load::Loaded,
    print::inline,
    resolve::short,
    source::Sources,
    tree::{Kind, Value},
};

/// One value of a job.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The value as RON.
    pub value: String,
    /// Where it was written.
    pub place: String,
}

/// A value that two jobs do not share; left out in one of them, it is missing there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Its path, such as `plan.mesh.pp`.
    pub path: String,
    /// What the first job sets.
    pub before: Option<Setting>,
    /// What the second job sets.
    pub after: Option<Setting>,
}

/// The values that differ, in the order of the first job; of their plans, the ones that run.
pub fn changes(before: &Loaded, after: &Loaded) -> Vec<Change> {
    let sources = [&before.sources, &after.sources];
    let mut comparison = Comparison { sources, changes: Vec::new() };
    comparison.all("", &fields(before), &fields(after));
    comparison.changes
}

/// Named parts of a value.
type Parts<'v> = Vec<(&'v str, &'v Value)>;

/// The fields of a job, without the plans that it does not run.
fn fields(loaded: &Loaded) -> Parts<'_> {
    let named = match &loaded.job.plan {
        PlanChoice::Named(name) => loaded.tree.at(&format!("plans.{name}")),
        PlanChoice::Inline(_) => None,
    };
    let mut fields = parts(&loaded.tree).unwrap_or_default();
    fields.retain(|(name, _)| *name != "plans");
    for (_, value) in fields.iter_mut().filter(|(name, _)| *name == "plan") {
        *value = named.unwrap_or(value);
    }
    fields
}

/// What a value consists of, if its parts have names; a variant's only map is looked through.
fn parts(value: &Value) -> Option<Parts<'_>> {
    match &value.kind {
        Kind::Record { fields, .. } => {
            Some(fields.iter().map(|field| (field.name.text.as_str(), &field.value)).collect())
        }
        Kind::Map(entries) => {
            entries.iter().map(|(key, value)| Some((key.text()?, value))).collect()
        }
        Kind::Tuple { items, .. } if matches!(&items[..], [Value { kind: Kind::Map(_), .. }]) => {
            parts(&items[0])
        }
        Kind::List(_) => value.named_items(),
        _ => None,
    }
}

/// Whether two values are no lists, or lists of the same names in the same order.
fn is_in_order(old: &Value, new: &Value) -> bool {
    let names = |value: &Value| {
        let items = value.named_items().unwrap_or_default();
        items.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    names(old) == names(new)
}

/// A walk through two trees at once.
struct Comparison<'s> {
    sources: [&'s Sources; 2],
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn all(&mut self, path: &str, before: &Parts<'_>, after: &Parts<'_>) {
        let find =
            |parts: &Parts<'_>, wanted: &str| parts.iter().position(|(name, _)| *name == wanted);
        let below =
            |name: &str| if path.is_empty() { name.into() } else { format!("{path}.{name}") };
        for (name, old) in before {
            let new = find(after, name).map(|at| after[at].1);
            self.one(below(name), Some(old), new);
        }
        for (name, new) in after.iter().filter(|(name, _)| find(before, name).is_none()) {
            self.one(below(name), None, Some(new));
        }
    }

    fn one(&mut self, path: String, before: Option<&Value>, after: Option<&Value>) {
        if let (Some(old), Some(new)) = (before, after) {
            let name = |value: &Value| value.name().map(|name| name.text.clone());
            if let (Some(old_parts), Some(new_parts)) = (parts(old), parts(new))
                && name(old) == name(new)
                && is_in_order(old, new)
            {
                return self.all(&path, &old_parts, &new_parts);
            }
            if inline(old) == inline(new) {
                return;
            }
        }
        let [first, second] = self.sources;
        let setting = |value: &Value, sources| Setting {
            value: inline(value),
            place: short(sources, value.span),
        };
        let before = before.map(|value| setting(value, first));
        let after = after.map(|value| setting(value, second));
        self.changes.push(Change { path, before, after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, load};

    fn loaded(plan: &str, sets: &[&str]) -> Loaded {
        let sets = sets.iter().map(|set| set.to_string()).collect();
        let plan = Some(plan.into());
        let request = Request { job: "k2-nano".into(), plan, sets, ..Request::default() };
        load(&request).unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn only_what_differs_is_a_change_and_plans_are_compared_by_what_they_say() {
        assert_eq!(changes(&loaded("main", &[]), &loaded("main", &["seed=42"])), []);
        let changes = changes(&loaded("pp2", &[]), &loaded("zero", &["seed=7", "plan.mesh.dp=2"]));
        let told = changes.iter().map(|change| {
            let value = |setting: &Option<Setting>| {
                setting.as_ref().map_or("-".into(), |setting| setting.value.clone())
            };
            format!("{}: {} {}", change.path, value(&change.before), value(&change.after))
        });
        let expected =
            ["seed: 42 7", "plan.mesh.dp: - 2", "plan.schedule: OneFOneB ZbH1"].map(String::from);
        assert_eq!(told.collect::<Vec<_>>(), expected);
        let place = &changes[0].after.as_ref().unwrap().place;
        assert_eq!(place, "--set seed=7");
    }

    #[test]
    fn phases_are_compared_by_name_and_their_order_counts() {
        let phase = |name: &str| format!("(name: \"{name}\", tokens: 8192)");
        let set = |first: &str, second: &str| {
            format!("actors.learner.phases=[{}, {}]", phase(first), phase(second))
        };
        let paths = |sets: &[&str]| {
            let changes = changes(&loaded("pp2", &[&set("a", "b")]), &loaded("pp2", sets));
            changes.into_iter().map(|change| change.path).collect::<Vec<_>>()
        };
        let longer = "actors.learner.phases.b.tokens=4096";
        assert_eq!(paths(&[&set("a", "b"), longer]), ["actors.learner.phases.b.tokens"]);
        assert_eq!(paths(&[&set("b", "a")]), ["actors.learner.phases"]);
    }
}
