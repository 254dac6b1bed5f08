//! The tables of a page: the text alternative to its picture.

use std::fmt::Write;

use crate::view::{
    late::{self, BOUNDS},
    marks::{CAUSES, reason, title, words},
    page::escaped,
    reading,
    scene::{Scene, Step, number},
};

/// Surprises that are listed.
const SURPRISES: usize = 5;

/// The figures of each step, those after the first with their difference.
pub(super) fn figures(scene: &Scene) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in scene.steps.iter().flat_map(|step| &step.facts) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let fixed = ["plan", "step", "idle", "most held"].into_iter().chain(names.iter().copied());
    let mut rows = Vec::new();
    for (place, step) in scene.steps.iter().enumerate() {
        let first = &scene.steps[0];
        let makespan = step.shown().makespan();
        let mut time = step.unit.words(makespan);
        let mut idle = format!("{:.1} %", 100.0 * step.idle());
        if place > 0 {
            time += &change(makespan / first.shown().makespan() - 1.0, "%");
            idle += &change(step.idle() - first.idle(), "points");
        }
        let mark = (b'A' + place as u8) as char;
        let mut row = vec![format!("{mark} {}", escaped(&step.name)), time, idle, step.peak()];
        for name in &names {
            let fact = step.facts.iter().find(|(own, _)| own == name);
            row.push(fact.map_or(String::new(), |(_, value)| escaped(value)));
        }
        rows.push(row);
    }
    table("", &fixed.map(escaped).collect::<Vec<_>>(), &rows)
}

/// A difference with a sign that does without colour: less is better.
fn change(share: f64, unit: &str) -> String {
    let (class, mark) = match share {
        share if share < -0.0005 => ("better", "▼"),
        share if share > 0.0005 => ("worse", "▲"),
        _ => return " (=)".into(),
    };
    format!(" <span class=\"{class}\">{mark} {:+.1} {unit}</span>", 100.0 * share)
}

/// All tables below each other.
pub(super) fn tables(scene: &Scene) -> String {
    let mut html = figures(scene);
    for (place, step) in scene.steps.iter().enumerate() {
        let mark = (b'A' + place as u8) as char;
        let _ = writeln!(html, "<h2>{mark} {}</h2>", escaped(&step.name));
        html += &ranks(step);
        html += &kinds(step);
        if let Some(measured) = &step.measured {
            html += &surprises(step, &measured.timeline);
            html += &ratios(step, &measured.timeline);
        }
    }
    html
}

/// Busy and idle time of each rank, by cause, and what it holds at most.
fn ranks(step: &Step) -> String {
    let shown = step.shown();
    let makespan = shown.makespan();
    let idle: Vec<_> = shown.ranks.iter().map(|spans| reading::idle(spans, makespan)).collect();
    let causes: Vec<_> = CAUSES
        .into_iter()
        .filter(|cause| idle.iter().any(|idle| idle.contains_key(cause)))
        .collect();
    let head = ["rank", "computes", "idle"].map(String::from).into_iter();
    let head = head.chain(causes.iter().map(|cause| reason(*cause).to_string()));
    let head: Vec<String> = head.chain(["holds at most".to_string()]).collect();
    let rows = shown.ranks.iter().zip(&idle).enumerate().map(|(rank, (spans, idle))| {
        let busy = reading::busy(spans);
        let share = format!("{:.1} %", 100.0 * (1.0 - busy / makespan));
        let mut row = vec![format!("{rank}"), step.unit.words(busy), share];
        let time = |time: Option<&f64>| time.map_or("–".into(), |time| step.unit.words(*time));
        row.extend(causes.iter().map(|cause| time(idle.get(cause))));
        row.push(match &step.memory {
            Some(memory) => crate::view::progress::bytes(memory.peak(rank) as usize),
            None => format!("{} activations", reading::peak(&reading::held(spans))),
        });
        row
    });
    table("Idle time by cause", &head, &rows.collect::<Vec<_>>())
}

/// How many spans of each kind there are and how long they take.
fn kinds(step: &Step) -> String {
    let mut sums = std::collections::BTreeMap::new();
    for span in step.shown().ranks.iter().flatten() {
        let (count, sum) = sums.entry(span.task.kind).or_insert((0_usize, 0.0));
        *count += 1;
        *sum += span.end - span.start;
    }
    let rows = sums.into_iter().map(|(kind, (count, sum))| {
        let mean = step.unit.words(sum / count as f64);
        vec![words(kind).to_string(), count.to_string(), step.unit.words(sum), mean]
    });
    let head = ["work", "spans", "in all", "mean"].map(String::from);
    table("Work by kind, over all ranks", &head, &rows.collect::<Vec<_>>())
}

/// The surprises of every step that ran, for those who look at the picture.
pub(super) fn all_surprises(scene: &Scene) -> String {
    let ran = scene.steps.iter().filter_map(|step| Some((step, step.measured.as_ref()?)));
    ran.map(|(step, measured)| surprises(step, &measured.timeline)).collect()
}

/// The spans that added most to the step's lateness.
fn surprises(step: &Step, measured: &graphs::timeline::Timeline) -> String {
    let late = late::surprises(late::lateness(&step.timeline, measured), SURPRISES);
    let signed = |time: f64| {
        let sign = if time < 0.0 { "−" } else { "+" };
        format!("{sign}{}", step.unit.words(time.abs()))
    };
    let rows = late.iter().map(|it| {
        let link = format!(
            "<a href=\"#box={},{}\">rank {}, {}</a>",
            it.rank,
            it.place,
            it.rank,
            escaped(&title(it.task))
        );
        let parts = [it.own, it.inherited, it.queueing, it.total()].map(signed);
        [vec![link], parts.to_vec()].concat()
    });
    let head = ["span", "own delay", "inherited", "queueing", "late"].map(String::from);
    table("The five largest surprises", &head, &rows.collect::<Vec<_>>())
}

/// Measured over planned lengths, kind by kind, as a histogram in numbers.
fn ratios(step: &Step, measured: &graphs::timeline::Timeline) -> String {
    let mut head = ["work", "planned", "measured", "error"].map(String::from).to_vec();
    head.push(format!("up to {} of plan", BOUNDS[0]));
    head.extend(BOUNDS.windows(2).map(|pair| format!("to {}", number(pair[1]))));
    head.push("more".into());
    let rows = late::ratios(&step.timeline, measured).into_iter().map(|(kind, ratio)| {
        let mean = |sum: f64| step.unit.words(sum / ratio.count as f64);
        let error = match ratio.planned {
            0.0 => "–".into(),
            planned => format!("{:+.0} %", 100.0 * (ratio.measured / planned - 1.0)),
        };
        let row = [words(kind).to_string(), mean(ratio.planned), mean(ratio.measured), error];
        row.into_iter().chain(ratio.histogram.map(|count| count.to_string())).collect()
    });
    table("Measured over planned lengths", &head, &rows.collect::<Vec<_>>())
}

/// A table; cells are HTML already.
fn table(caption: &str, head: &[String], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"wide\"><table>");
    if !caption.is_empty() {
        let _ = write!(html, "<caption>{caption}</caption>");
    }
    let cells: String = head.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let _ = writeln!(html, "<thead><tr>{cells}</tr></thead><tbody>");
    for row in rows {
        let (first, rest) = row.split_first().expect("rows have cells");
        let rest: String = rest.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(html, "<tr><th scope=\"row\">{first}</th>{rest}</tr>");
    }
    html + "</tbody></table></div>\n"
}

/// What made the page.
pub(super) fn footer(scene: &Scene) -> String {
    let part = |(name, value): &(String, String)| {
        format!("{} <code>{}</code>", escaped(name), escaped(value))
    };
    scene.origin.iter().map(part).collect::<Vec<_>>().join(" · ")
}
