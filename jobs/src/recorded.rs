//! The files of `run --trace`: one for each recorded step, in lines of JSON.
//!
//! ```text
//! trace/
//!   step-00000003.jsonl     a line about the step, then a line for each actor
//!   step-00000003.perfetto  the same for https://ui.perfetto.dev
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use graphs::Plan;
use runtime::trace::Recording;
use serde::{Deserialize, Serialize};

use crate::{
    exit::Failure,
    saved,
    view::{
        perfetto,
        scene::{Scene, Step, Unit},
        traced,
    },
};

/// Version of the files.
const SCHEMA: u32 = 1;

/// The first line: what was recorded.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Heading {
    schema: u32,
    job: String,
    plan: String,
    step: u64,
}

/// Writes a recorded step into a folder.
///
/// # Errors
///
/// If the folder or a file cannot be written.
pub fn write(dir: &Path, job: &str, plan: &Plan, recording: &Recording) -> Result<(), Failure> {
    let heading =
        Heading { schema: SCHEMA, job: job.into(), plan: saved::hash(plan), step: recording.step };
    let mut text = line(&heading);
    text.extend(recording.actors.iter().map(line));
    let step = Step {
        timeline: traced::measured(plan, recording).timeline,
        ..Step::new(format!("{job}, step {}", recording.step), Unit::Seconds)
    };
    let scene = Scene { title: job.into(), steps: vec![step], origin: Vec::new() };
    fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
    let name = |ending: &str| dir.join(format!("step-{:08}.{ending}", recording.step));
    for (path, bytes) in
        [(name("jsonl"), text.into_bytes()), (name("perfetto"), perfetto::write(&scene))]
    {
        fs::write(&path, bytes).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn line<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("notes are plain numbers") + "\n"
}

/// Reads the newest recorded step of a folder, or the file itself; it must be of this plan.
///
/// # Errors
///
/// If there is none, it cannot be read, or another plan ran.
pub fn read(from: &Path, plan: &Plan) -> Result<Recording, Failure> {
    let path = if from.is_dir() { newest(from)? } else { from.to_path_buf() };
    let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::environment(format!("{}: no recorded step: {error}", path.display()))
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let heading: Heading = serde_json::from_str(first).map_err(|error| wrong(&error))?;
    if heading.schema != SCHEMA {
        let schema = heading.schema;
        return Err(wrong(&format!("it has schema {schema}, expected {SCHEMA}")));
    }
    if heading.plan != saved::hash(plan) {
        let text = format!(
            "{}: another plan of the job {} ran there; give the same --plan and --set as `run`",
            path.display(),
            heading.job
        );
        return Err(Failure::usage(text));
    }
    let actors = lines.map(serde_json::from_str).collect::<Result<_, _>>();
    Ok(Recording { step: heading.step, actors: actors.map_err(|error| wrong(&error))? })
}

fn newest(dir: &Path) -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(dir).map_err(|error| failed(dir, &error))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let steps = paths.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    steps.max().ok_or_else(|| {
        let text =
            format!("{}: no step-*.jsonl; `troupe run JOB --trace {0}` writes one", dir.display());
        Failure::environment(text)
    })
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::environment(format!("{}: {error}", path.display()))
}
