//! `diff`: what two jobs set differently, and what follows differently.

use std::{collections::BTreeSet, fmt::Write};

use graphs::{Consequences, share};
use serde_json::{Value, json};

use crate::{
    consequences::consequences,
    exit::Failure,
    load::Loaded,
    report::SCHEMA,
    settings::{Change, Setting, changes},
    view::{
        progress::{bytes, grouped},
        words::time,
    },
};

/// What was found, and whether the two are the same.
pub struct Answer {
    /// The page, or its JSON.
    pub text: String,
    /// Whether nothing differs.
    pub is_same: bool,
}

/// Compares two jobs.
///
/// # Errors
///
/// A plan that hangs, of which loading has proved that there is none.
pub fn diff(before: &Loaded, after: &Loaded, as_json: bool) -> Result<Answer, Failure> {
    let settings = changes(before, after);
    let found = [consequences(before, None)?, consequences(after, None)?];
    let figures = compared(&found[0], &found[1]);
    let moved = moved(before, after);
    let text = if as_json {
        answer(&settings, &figures, moved)
    } else {
        page(before, after, &settings, &figures, moved)
    };
    Ok(Answer { text, is_same: settings.is_empty() })
}

/// A figure of both plans.
struct Figure {
    name: &'static str,
    values: [f64; 2],
    write: fn(f64) -> String,
}

/// The figures in which plans are compared.
fn compared(before: &Consequences, after: &Consequences) -> Vec<Figure> {
    let size = |value: f64| bytes(value as usize);
    let percent = |value: f64| format!("{:.1} %", 100.0 * value);
    let count = |value: f64| grouped(value as u64);
    let figure = |name, of: fn(&Consequences) -> f64, write| Figure {
        name,
        values: [of(before), of(after)],
        write,
    };
    vec![
        figure("step", |it| it.outcome.makespan, time),
        figure("tokens/s", |it| it.outcome.tokens_per_second, count),
        figure("MFU", |it| it.outcome.mfu, percent),
        figure("idle", |it| it.outcome.idle, percent),
        figure("memory", |it| it.fullest().1 as f64, size),
        figure("pipeline", |it| it.traffic.pipeline, size),
        figure("experts", |it| it.traffic.experts, size),
        figure("replicas", |it| it.traffic.replicas.total() as f64, size),
    ]
}

/// Parameters whose ranks change, all parameters, and the F32 bytes of the first.
type Moved = (usize, usize, u64);

/// The parameters that other ranks will hold; nothing if the models are not the same.
fn moved(before: &Loaded, after: &Loaded) -> Option<Moved> {
    let parameters = before.graph.parameters();
    if parameters != after.graph.parameters() {
        return None;
    }
    let [old, new] = [before, after].map(ranks);
    let changed = parameters.iter().zip(old.iter().zip(&new)).filter(|(_, (a, b))| a != b);
    let elements: Vec<u64> = changed.map(|(it, _)| it.elements() as u64).collect();
    Some((elements.len(), parameters.len(), 4 * elements.iter().sum::<u64>()))
}

/// The ranks that hold each parameter.
fn ranks(loaded: &Loaded) -> Vec<BTreeSet<usize>> {
    let mesh = &loaded.plan.mesh;
    let shares = share::shares(&loaded.plan, &loaded.graph).into_iter();
    shares.map(|share| share.holders.iter().map(|it| it.index(mesh) / 2).collect()).collect()
}

fn answer(settings: &[Change], figures: &[Figure], moved: Option<Moved>) -> String {
    let value = |setting: &Option<Setting>| {
        setting.as_ref().map(|it| json!({ "value": it.value, "place": it.place }))
    };
    let change = |change: &Change| {
        let (before, after) = (value(&change.before), value(&change.after));
        json!({ "path": change.path, "before": before, "after": after })
    };
    let settings: Vec<Value> = settings.iter().map(change).collect();
    let figure = |it: &Figure| {
        (it.name.to_string(), json!({ "before": it.values[0], "after": it.values[1] }))
    };
    let figures: serde_json::Map<_, _> = figures.iter().map(figure).collect();
    let moved =
        moved.map(|(moved, all, bytes)| json!({ "parameters": moved, "of": all, "bytes": bytes }));
    let answer = json!({
        "schema": SCHEMA, "settings": settings, "consequences": figures, "resharded": moved,
    });
    format!("{answer}\n")
}

fn page(
    before: &Loaded,
    after: &Loaded,
    settings: &[Change],
    figures: &[Figure],
    moved: Option<Moved>,
) -> String {
    let mut page = format!("{}  ->  {}\n", title(before), title(after));
    if settings.is_empty() {
        return page + "no setting differs\n";
    }
    page += "settings\n";
    let width = settings.iter().map(|change| change.path.len()).max().unwrap_or(0);
    for Change { path, before, after } in settings {
        let value = |setting: &Option<Setting>| {
            setting.as_ref().map_or("left out".into(), |setting| setting.value.clone())
        };
        let place = after.as_ref().or(before.as_ref()).map_or("", |setting| &setting.place);
        let (before, after) = (value(before), value(after));
        let _ = writeln!(page, "  {path:width$}  {before} -> {after}    {place}");
    }
    page += "consequences\n";
    for Figure { name, values: [before, after], write } in figures {
        let change = match before {
            0.0 => String::new(),
            _ => format!("{:+.1} %", 100.0 * (after / before - 1.0)),
        };
        let (before, after) = (write(*before), write(*after));
        let line = format!("  {name:<9} {before:>14} -> {after:>14}  {change:>9}");
        let _ = writeln!(page, "{}", line.trim_end());
    }
    match moved {
        Some((0, _, _)) => page += "  every parameter stays on its ranks\n",
        Some((moved, all, size)) => {
            let size = bytes(size as usize);
            let (moved, all) = (grouped(moved as u64), grouped(all as u64));
            let _ = writeln!(page, "  {moved} of {all} parameters change ranks, {size} in F32");
        }
        None => page += "  the models differ, so nothing can be taken over\n",
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
    fn a_plan_is_like_itself_and_other_schedules_keep_parameters_in_place() {
        let same = diff(&loaded("main", &[]), &loaded("main", &[]), false).unwrap();
        assert!(same.is_same && same.text.ends_with("no setting differs\n"), "{}", same.text);
        let text = diff(&loaded("pp2", &[]), &loaded("gpipe", &[]), false).unwrap().text;
        assert!(text.contains("plan.schedule  OneFOneB -> GPipe"), "{text}");
        assert!(text.contains("every parameter stays on its ranks"), "{text}");
        let memory = text.lines().find(|line| line.starts_with("  memory")).unwrap();
        assert!(memory.contains('+'), "all forward passes first hold more: {memory}");
    }

    #[test]
    fn another_mesh_moves_parameters_and_counts_them() {
        let (before, after) = (loaded("pp2", &[]), loaded("ep2", &[]));
        let answer = diff(&before, &after, true).unwrap();
        let answer: Value = serde_json::from_str(&answer.text).unwrap();
        let moved = &answer["resharded"];
        let all = before.graph.parameters().len();
        assert_eq!(moved["of"].as_u64().unwrap() as usize, all);
        assert!((1..=all).contains(&(moved["parameters"].as_u64().unwrap() as usize)));
        assert!(!answer["settings"].as_array().unwrap().is_empty());
        let model = loaded("pp2", &["model.layers=5"]);
        assert!(diff(&before, &model, false).unwrap().text.contains("the models differ"));
    }
}
