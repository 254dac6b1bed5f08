//! `diff`: what two jobs set differently.

use serde_json::json;

use crate::{
    load::Loaded,
    report::SCHEMA,
    settings::{Change, Setting, changes},
};

/// What was found, and whether the two are the same.
pub struct Answer {
    /// The page, or its JSON.
    pub text: String,
    /// Whether nothing differs.
    pub is_same: bool,
}

/// Compares the settings of two jobs.
pub fn diff(before: &Loaded, after: &Loaded, as_json: bool) -> Answer {
    let settings = changes(before, after);
    let text = if as_json { figures(&settings) } else { page(before, after, &settings) };
    Answer { text, is_same: settings.is_empty() }
}

fn figures(settings: &[Change]) -> String {
    let value = |setting: &Option<Setting>| {
        setting.as_ref().map(|it| json!({ "value": it.value, "place": it.place }))
    };
    let change = |change: &Change| {
        let (before, after) = (value(&change.before), value(&change.after));
        json!({ "path": change.path, "before": before, "after": after })
    };
    let settings: Vec<_> = settings.iter().map(change).collect();
    format!("{}\n", json!({ "schema": SCHEMA, "settings": settings }))
}

fn page(before: &Loaded, after: &Loaded, settings: &[Change]) -> String {
    let mut page = format!("{}  ->  {}\n", title(before), title(after));
    if settings.is_empty() {
        return page + "no setting differs\n";
    }
    let width = settings.iter().map(|change| change.path.len()).max().unwrap_or(0);
    for Change { path, before, after } in settings {
        let value = |setting: &Option<Setting>| {
            setting.as_ref().map_or("left out".into(), |setting| setting.value.clone())
        };
        let place = after.as_ref().or(before.as_ref()).map_or("", |setting| &setting.place);
        let (before, after) = (value(before), value(after));
        page += &format!("  {path:width$}  {before} -> {after}    {place}\n");
    }
    page
}

/// A job and its plan in words.
fn title(loaded: &Loaded) -> String {
    match loaded.job.plan_name() {
        Some(plan) => format!("{} under plan `{plan}`", loaded.job.name),
        None => loaded.job.name.clone(),
    }
}
