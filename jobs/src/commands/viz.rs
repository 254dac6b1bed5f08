//! `viz`: a step as a page, an SVG, letters in the terminal, or a trace.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use graphs::{
    bare::Bare,
    overlap::{Carried, Overlap, Travel},
    price::Profile,
    schedule::Pipeline,
    simulate::{self, Conditions, Costs},
};
use serde_json::json;

use crate::{
    commands::schedule,
    exit::Failure,
    load::Loaded,
    machine, recorded,
    report::SCHEMA,
    saved,
    view::{
        drawing, folded, held, page, perfetto, reading,
        scene::{Memory, Scene, Step, Unit, published},
        terminal::{self, Terminal},
        traced,
    },
};

/// Steps that one picture compares.
pub const MOST_STEPS: usize = 4;

/// What is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// A page of its own (HTML).
    Page,
    /// A picture of a small step.
    Svg,
    /// A trace for <https://ui.perfetto.dev>.
    Perfetto,
    /// Letters, a line for each rank.
    Text,
}

/// Where a picture goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The file; standard output if left out.
    pub file: Option<PathBuf>,
    /// What is written; left out, what the file's name says.
    pub format: Option<Format>,
    /// Columns of letters; left out, those of the terminal.
    pub width: Option<usize>,
    /// Whether letters come with what each rank holds.
    pub memory: bool,
}

/// The step of a schedule that runs alone.
///
/// # Errors
///
/// If there is no such schedule or it does not know the pipeline.
pub fn of_schedule(name: &str, pipeline: Pipeline, costs: &Costs) -> Result<Step, Failure> {
    let rule = schedule::named(name)?;
    let virtual_stages = rule.virtual_stages().unwrap_or(pipeline.virtual_stages);
    let pipeline = Pipeline { virtual_stages, ..pipeline };
    let text = schedule::print(&rule, pipeline, false)?;
    let rows = graphs::csv::read(&text).expect("what is written reads back");
    let bare = Bare::new(rows).expect("a schedule's orders are lawful");
    of_orders(published(rule.name()), &bare, costs)
}

/// The step of a file of orders.
///
/// # Errors
///
/// If it cannot be read, is not lawful or hangs.
pub fn of_file(path: &Path, costs: &Costs) -> Result<Step, Failure> {
    let name = path.file_stem().map_or_else(String::new, |name| name.display().to_string());
    of_orders(&name, &schedule::read(path)?, costs)
}

fn of_orders(name: &str, bare: &Bare, costs: &Costs) -> Result<Step, Failure> {
    let hangs = |hang: graphs::check::Hang| Failure { code: 3, text: hang.to_string() };
    let timeline = simulate::timeline(bare, costs).map_err(hangs)?;
    let fewest = graphs::check::fewest_credits(bare).map_err(hangs)?;
    let facts = vec![
        ("microbatches".into(), bare.microbatches().to_string()),
        ("credits".into(), fewest.to_string()),
    ];
    Ok(Step { timeline, facts, ..Step::new(name.into(), Unit::Units) })
}

/// How long the work of a job takes.
#[derive(Clone, Debug)]
pub enum Speed {
    /// Every chunk costs the same, in units; messages and experts are not drawn.
    Costs(Costs),
    /// In seconds, as the job's cluster or a profile has it.
    Prices {
        /// What was measured.
        profile: Option<Profile>,
        /// Folder of a recorded run, which is drawn over the plan. Without a profile the plan
        /// stands at the run's own mean speed.
        trace: Option<PathBuf>,
    },
}

/// The step of a job's plan.
///
/// # Errors
///
/// If the recorded run is of another plan.
pub fn of_job(loaded: &Loaded, speed: &Speed) -> Result<Step, Failure> {
    let Loaded { job, plan, graph, .. } = loaded;
    let name = job.plan_name().unwrap_or("plan").to_string();
    let mut step = match speed {
        Speed::Costs(costs) => of_orders(&name, &bare(loaded)?, costs)?,
        Speed::Prices { profile, trace } => in_seconds(loaded, name, profile.as_ref(), trace)?,
    };
    let mesh = plan.mesh;
    let ranks = format!("{} = {} x {} x {}", mesh.ranks(), mesh.pp, mesh.ep, mesh.dp);
    step.facts.push(("ranks = pp x ep x dp".into(), ranks));
    step.facts.extend(loaded.phase().name.clone().map(|name| ("phase".into(), name)));
    step.stages = folded::stages(graph, plan);
    let (dtype, optimizer) = (job.precision.dtype(), &job.learner().1.optimizer);
    let limit = machine::cluster(job).memory(mesh.ranks());
    let memory = held::memory(graph, plan, dtype, optimizer, step.shown());
    step.memory = Some(Memory { limit: Some(limit), ..memory });
    Ok(step)
}

fn in_seconds(
    loaded: &Loaded,
    name: String,
    profile: Option<&Profile>,
    trace: &Option<PathBuf>,
) -> Result<Step, Failure> {
    let Loaded { job, plan, graph, .. } = loaded;
    let recording = trace.as_deref().map(|folder| recorded::read(folder, plan)).transpose()?;
    let prices = match (&recording, profile) {
        (Some(recording), None) => traced::prices(plan, graph, recording),
        _ => machine::prices(job, graph, plan, profile),
    };
    let simulated = simulate::plan(plan, &prices, &Conditions::default());
    let simulated = simulated.map_err(|hang| Failure { code: 3, text: hang.to_string() })?;
    let outcome = simulated.outcome;
    let mut facts = Vec::new();
    if outcome.mfu > 0.0 {
        facts.push(("MFU".into(), format!("{:.1} %", 100.0 * outcome.mfu)));
    }
    facts.extend(overlap_facts(
        "planned",
        Overlap::sum(Overlap::of_timeline(plan, &simulated.timeline)),
    ));
    if let Some(recording) = &recording {
        facts.extend(overlap_facts("recorded", recording.overlap(plan)));
        let by = if profile.is_some() { "the profile" } else { "its own mean speed" };
        let time = Unit::Seconds.words(outcome.makespan);
        facts.push(("recorded step".into(), recording.step.to_string()));
        facts.push((format!("planned at {by}"), time));
    }
    Ok(Step {
        timeline: simulated.timeline,
        measured: recording.map(|recording| traced::measured(plan, &recording)),
        facts,
        ..Step::new(name, Unit::Seconds)
    })
}

/// How much of what travels is hidden, a fact for each kind.
fn overlap_facts(which: &str, overlap: Overlap) -> Vec<(String, String)> {
    let fact = |(carried, travel): (&Carried, &Travel)| {
        let all = Unit::Seconds.words(travel.hidden + travel.exposed);
        let hidden = format!("{:.1} % of {all}", 100.0 * travel.part_hidden());
        (format!("{} hidden, {which}", carried.name()), hidden)
    };
    overlap.whole.iter().map(fact).collect()
}

/// The compute orders of a lowered plan.
fn bare(loaded: &Loaded) -> Result<Bare, Failure> {
    let text = graphs::text::orders(&loaded.plan.orders);
    let rows = graphs::csv::read(&text).expect("what is written reads back");
    Bare::new(rows).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure { code: 3, text: all.join("\n") }
    })
}

/// What made a job's picture: job, hashes.
pub fn origin(loaded: &Loaded) -> Vec<(String, String)> {
    let job = blake3::hash(loaded.text().as_bytes()).to_hex();
    vec![
        ("job".into(), loaded.job.name.clone()),
        ("job hash".into(), job[..16].into()),
        ("plan hash".into(), saved::hash(&loaded.plan)[..16].into()),
    ]
}

/// Draws a scene where it is wanted; returns what is to be printed.
///
/// # Errors
///
/// If there are too many steps, no format is known for the file, the picture would be too large,
/// or the file cannot be written.
pub fn draw(mut scene: Scene, target: &Target, as_json: bool) -> Result<Vec<u8>, Failure> {
    if !(1..=MOST_STEPS).contains(&scene.steps.len()) {
        let text = format!("{} steps in a picture; expected 1 to {MOST_STEPS}", scene.steps.len());
        return Err(Failure::usage(text));
    }
    if scene.steps.iter().any(|step| step.unit != scene.steps[0].unit) {
        let text = "steps in seconds and steps in units have no common scale";
        return Err(Failure::usage(text.into()));
    }
    scene.origin.push(("troupe".into(), env!("CARGO_PKG_VERSION").into()));
    let bytes = match format(target)? {
        Format::Page => page::page(&scene).into_bytes(),
        Format::Perfetto => perfetto::write(&scene),
        Format::Svg => {
            drawing::draw(&scene).map_err(|many| Failure::usage(many.to_string()))?.into_bytes()
        }
        Format::Text if as_json => format!("{}\n", figures(&scene)).into_bytes(),
        Format::Text => terminal::draw(&scene, terminal(target)).into_bytes(),
    };
    let Some(file) = &target.file else { return Ok(bytes) };
    std::fs::write(file, bytes)
        .map_err(|error| Failure::environment(format!("{}: {error}", file.display())))?;
    Ok(Vec::new())
}

/// What the ending of a file asks for.
fn format(target: &Target) -> Result<Format, Failure> {
    let Some(file) = target.file.as_ref().filter(|_| target.format.is_none()) else {
        return Ok(target.format.unwrap_or(Format::Text));
    };
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => Ok(Format::Page),
        Some("svg") => Ok(Format::Svg),
        Some("perfetto" | "pftrace" | "perfetto-trace") => Ok(Format::Perfetto),
        Some("txt") => Ok(Format::Text),
        _ => Err(Failure::usage(format!(
            "{}: no format has this ending; expected .html, .svg, .perfetto or .txt, or --format",
            file.display()
        ))),
    }
}

/// What the terminal takes, as its environment says.
fn terminal(target: &Target) -> Terminal {
    let set = |name: &str| std::env::var(name).unwrap_or_default();
    let first = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().map(set).find(|it| !it.is_empty());
    let locale = first.unwrap_or_default().to_lowercase();
    let is_terminal = target.file.is_none() && std::io::stdout().is_terminal();
    let is_plain = !set("NO_COLOR").is_empty();
    Terminal {
        width: target.width.or_else(|| set("COLUMNS").parse().ok()).unwrap_or(100).max(20),
        ascii: set("TERM") == "dumb" || !(locale.contains("utf-8") || locale.contains("utf8")),
        colour: is_terminal && !is_plain && set("TERM") != "dumb",
        memory: target.memory,
    }
}

/// The figures of a scene for other programs.
fn figures(scene: &Scene) -> serde_json::Value {
    let steps = scene.steps.iter().map(|step| {
        let shown = step.shown();
        let makespan = shown.makespan();
        let ranks = shown.ranks.iter().map(|spans| {
            let idle = reading::idle(spans, makespan).into_iter();
            let idle = idle.map(|(cause, time)| (format!("{cause:?}"), json!(time)));
            let idle: serde_json::Map<_, _> = idle.collect();
            json!({ "busy": reading::busy(spans), "idle": idle, "spans": spans.len() })
        });
        json!({
            "name": step.name,
            "unit": if step.unit == Unit::Seconds { "s" } else { "units" },
            "makespan": makespan,
            "idle": step.idle(),
            "ranks": ranks.collect::<Vec<_>>(),
            "critical_path": reading::critical_path(shown).len(),
        })
    });
    json!({ "schema": SCHEMA, "steps": steps.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(file: &str) -> Target {
        Target { file: Some(file.into()), format: None, width: None, memory: false }
    }

    fn scene() -> Scene {
        let pipeline = Pipeline { stages: 2, virtual_stages: 1, microbatches: 4 };
        let costs = schedule::costs("F=1,I=1,W=1,comm=0").unwrap();
        let step = of_schedule("ZbH1", pipeline, &costs).unwrap();
        Scene { title: "t".into(), steps: vec![step], origin: Vec::new() }
    }

    #[test]
    fn the_ending_of_a_file_says_its_format_and_an_argument_beats_it() {
        assert_eq!(format(&target("a.html")).unwrap(), Format::Page);
        assert_eq!(format(&target("a.perfetto")).unwrap(), Format::Perfetto);
        assert_eq!(format(&target("a.pdf")).unwrap_err().code, 2);
        let forced = Target { format: Some(Format::Svg), ..target("a.html") };
        assert_eq!(format(&forced).unwrap(), Format::Svg);
    }

    #[test]
    fn every_format_is_written_to_its_file() {
        let dir = tempfile::tempdir().unwrap();
        for (name, begin) in [
            ("a.html", "<!doctype html>"),
            ("a.svg", "<svg "),
            ("a.txt", "ZB-H1   7.7 % idle, 13 units\n"),
        ] {
            let file = dir.path().join(name);
            let target = target(file.to_str().unwrap());
            assert!(draw(scene(), &target, false).unwrap().is_empty());
            assert!(std::fs::read_to_string(&file).unwrap().starts_with(begin), "{name}");
        }
    }

    #[test]
    fn figures_are_told_to_other_programs() {
        let value = figures(&scene());
        assert_eq!(value["steps"][0]["makespan"], 13.0);
        assert_eq!(value["steps"][0]["ranks"][0]["busy"], 12.0);
    }

    #[test]
    fn too_many_steps_and_mixed_units_are_refused() {
        let mut many = scene();
        many.steps = vec![many.steps[0].clone(); 5];
        assert_eq!(draw(many, &target("a.txt"), false).unwrap_err().code, 2);
        let mut mixed = scene();
        mixed.steps.push(Step::new("seconds".into(), Unit::Seconds));
        assert_eq!(draw(mixed, &target("a.txt"), false).unwrap_err().code, 2);
    }
}
