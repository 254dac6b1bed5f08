//! A page of its own: lanes, graph and tables in one HTML file that needs no network.
//!
//! The data stands inline in columns (see [`super::columns`]); `page.js` draws it on a canvas.
//! The tables are plain HTML and say in text what the picture shows.

use serde_json::{Value, json};

use crate::view::{
    columns::{self, Clock},
    marks::{CAUSES, KINDS, Track, fill, letter, reason, words},
    reading,
    scene::{Measured, Scene, Stage, Step, Unit, folded},
};

mod tables;

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Spans of a step beyond which segments are joined to whole actions.
const MOST_SPANS: usize = 250_000;

/// Steps of the scale on which bytes are drawn.
const LEVELS: u64 = 4096;

/// The page of a scene.
pub fn page(scene: &Scene) -> String {
    let data = data(scene).to_string().replace('<', "\\u003c");
    let parts = [
        ("style", STYLE.to_string()),
        ("figures", tables::figures(scene)),
        ("surprises", tables::all_surprises(scene)),
        ("tables", tables::tables(scene)),
        ("footer", tables::footer(scene)),
        ("description", escaped(&description(scene))),
        ("title", escaped(&scene.title)),
        ("data", data),
        ("script", SCRIPT.to_string()),
    ];
    filled(&parts)
}

/// The frame with its marks, `{name}`, replaced; what is put in is not looked at again.
fn filled(parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = FRAME;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').expect("marks of the frame end");
        page += before;
        page.extend(parts.iter().filter(|(own, _)| *own == name).map(|(_, text)| text.as_str()));
        rest = after;
    }
    page + rest
}

/// What the picture shows, in a few sentences.
fn description(scene: &Scene) -> String {
    let each = scene.steps.iter().map(|step| {
        let ranks = step.shown().ranks.len();
        let time = step.unit.words(step.shown().makespan());
        let idle = 100.0 * step.idle();
        format!("{}: {ranks} ranks, a step of {time}, {idle:.1} % idle.", step.name)
    });
    let each: Vec<String> = each.collect();
    format!("What each rank does over one step. {} The Tables tab has the figures.", each.join(" "))
}

/// Text inside of HTML or of an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn data(scene: &Scene) -> Value {
    let kinds = KINDS.map(|kind| json!([letter(kind).to_string(), words(kind), fill(kind)]));
    json!({
        "kinds": kinds,
        "causes": CAUSES.map(reason),
        "tracks": Track::ALL.map(Track::name),
        "steps": scene.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step(step: &Step) -> Value {
    let planned = folded(&step.timeline, MOST_SPANS);
    let measured = step.measured.as_ref().map(|measured| {
        let timeline = folded(&measured.timeline, MOST_SPANS);
        let same = timeline.ranks == measured.timeline.ranks;
        let spread = if same { measured.spread.clone() } else { Vec::new() };
        Measured { timeline, spread }
    });
    let both = [Some(&planned), measured.as_ref().map(|measured| &measured.timeline)];
    let clock = Clock::of(both.into_iter().flatten());
    let ranks = |timeline: &graphs::timeline::Timeline| {
        let places = reading::places(timeline);
        let ranks = 0..timeline.ranks.len();
        ranks.map(|rank| columns::spans(timeline, &places, rank, clock)).collect::<Vec<_>>()
    };
    let spread = measured.iter().flat_map(|measured| {
        let ranks = measured.timeline.ranks.iter().zip(&measured.spread);
        ranks.map(|(spans, spread)| columns::spread(spans, spread, clock))
    });
    json!({
        "name": step.name,
        "unit": match step.unit { Unit::Units => "", Unit::Seconds => "s" },
        "tick": clock.tick,
        "planned": ranks(&planned),
        "measured": measured.as_ref().map(|measured| ranks(&measured.timeline)),
        "spread": spread.collect::<Vec<_>>(),
        "memory": memory(step, clock),
        "stages": step.stages.iter().map(stage).collect::<Vec<_>>(),
    })
}

fn memory(step: &Step, clock: Clock) -> Option<Value> {
    let memory = step.memory.as_ref()?;
    let peaks: Vec<u64> = (0..memory.ranks.len()).map(|rank| memory.peak(rank)).collect();
    let most = peaks.iter().copied().max().unwrap_or(0);
    let unit = (most / LEVELS).max(1);
    let rows = |rank: &Vec<(f64, Vec<u64>)>| {
        let rows = rank.iter().map(|(time, held)| (*time, held.as_slice()));
        columns::levels(rows, memory.classes.len(), clock, unit)
    };
    Some(json!({
        "classes": memory.classes,
        "limit": memory.limit,
        "unit": unit,
        "peaks": peaks,
        "ranks": memory.ranks.iter().map(rows).collect::<Vec<_>>(),
    }))
}

fn stage(stage: &Stage) -> Value {
    let chunks = stage.chunks.iter().map(|piece| json!([piece.chunk, piece.layers]));
    json!({ "chunks": chunks.collect::<Vec<_>>(), "channels": stage.channels })
}

#[cfg(test)]
mod tests;
