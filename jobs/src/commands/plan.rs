//! `plan`: what a job lowers to, level by level.

use std::path::Path;

use clap::ValueEnum;
use graphs::{Plan, text};
use serde_json::json;

use crate::{exit::Failure, load::Loaded, report::SCHEMA, saved, view::progress::grouped};

/// How far a job is lowered before it is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Level {
    /// Sizes, in a few lines.
    Summary,
    /// Nodes, sources and shapes.
    Model,
    /// Which stage holds which nodes.
    Place,
    /// Channels between actors.
    Route,
    /// Order of work of each stage.
    #[value(alias = "order")]
    Orders,
    /// Instructions of each actor.
    Program,
}

/// Prints a level of a loaded job.
pub fn plan(loaded: &Loaded, level: Level, as_json: bool) -> String {
    let (graph, plan) = (&loaded.graph, &loaded.plan);
    let printed = match level {
        Level::Summary if as_json => return format!("{}\n", figures(loaded, plan)),
        Level::Summary => summary(loaded, plan),
        Level::Model => text::model(graph),
        Level::Place => text::place(graph, plan),
        Level::Route => text::route(plan),
        Level::Orders => text::orders(&plan.orders),
        Level::Program => text::programs(plan),
    };
    if as_json { format!("{}\n", json!({ "schema": SCHEMA, "text": printed })) } else { printed }
}

/// Writes the plan into a file that runs as it stands, and says so.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save(loaded: &Loaded, asked: &str, file: &Path) -> Result<String, Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let text = saved::text(loaded, asked, folder.unwrap_or(Path::new(".")));
    let failed = |error| Failure::environment(format!("cannot write {}: {error}", file.display()));
    std::fs::write(file, text).map_err(failed)?;
    let path = file.display();
    Ok(format!("saved {path}: `troupe run {path}` runs it while its inputs stay as they are\n"))
}

fn parameters(loaded: &Loaded) -> u64 {
    loaded.graph.parameters().iter().map(|parameter| parameter.elements() as u64).sum()
}

fn figures(loaded: &Loaded, plan: &Plan) -> serde_json::Value {
    let (mesh, batch) = (plan.mesh, plan.batch);
    json!({
        "schema": SCHEMA,
        "job": loaded.job.name,
        "plan": loaded.job.plan_name(),
        "parameters": parameters(loaded),
        "mesh": { "pp": mesh.pp, "vpp": mesh.vpp, "ep": mesh.ep, "dp": mesh.dp },
        "ranks": mesh.ranks(),
        "sequences": batch.sequences,
        "context": batch.context,
        "microbatches": batch.microbatches(mesh.data_ranks()),
        "lanes": batch.lanes,
        "chunks": plan.chunks.len(),
        "channels": plan.channels.len(),
        "steps": loaded.job.steps(),
    })
}

fn summary(loaded: &Loaded, plan: &Plan) -> String {
    let (mesh, batch, job) = (plan.mesh, plan.batch, &loaded.job);
    let name = job.plan_name().map_or("written in place".into(), |name| format!("`{name}`"));
    let spec = job.plan();
    let lanes = batch.lanes.map_or(String::new(), |lanes| format!(" in {lanes} lanes"));
    format!(
        "{}   {} parameters, plan {name}\n\
         mesh      {} ranks = pp {} x ep {} x dp {}, {} virtual stages each\n\
         schedule  {}, {} microbatches on each data rank\n\
         step      {} sequences of {} tokens{lanes}, {} steps\n\
         channels  {} between {} programs; no deadlock for any timing\n",
        job.name,
        grouped(parameters(loaded)),
        mesh.ranks(),
        mesh.pp,
        mesh.ep,
        mesh.dp,
        mesh.vpp,
        spec.schedule().name(),
        batch.microbatches(mesh.data_ranks()),
        batch.sequences,
        batch.context,
        job.steps(),
        plan.channels.len(),
        2 * plan.programs.len(),
    )
}
