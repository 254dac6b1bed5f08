//! `plan`: what a job lowers to, level by level, and what follows from it.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use graphs::{
    Consequences,
    memory::{Advice, advice},
    share::Exchange,
    text,
    timeline::Cause,
};
use serde_json::{Value, json};

use crate::{
    consequences::{Expectation, consequences, expectations},
    exit::Failure,
    load::Loaded,
    machine, profile,
    report::SCHEMA,
    saved,
    view::{
        phases,
        progress::{bytes, grouped},
        words::{cause as cause_word, time},
    },
};

/// What is alive at the peak: entries that are shown.
const ALIVE: usize = 4;

/// Single changes that lower the memory: entries that are shown.
const ADVICE: usize = 5;

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

/// What is asked beside the job.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// File that `troupe measure` wrote.
    pub profile: Option<PathBuf>,
    /// Whether single changes that lower the memory are tried.
    pub advice: bool,
}

/// Prints a level of a loaded job.
///
/// # Errors
///
/// A profile that cannot be read.
pub fn plan(
    loaded: &Loaded,
    level: Level,
    asked: &Asked,
    as_json: bool,
) -> Result<String, Failure> {
    let (graph, plan) = (&loaded.graph, &loaded.plan);
    let printed = match level {
        Level::Summary => return summary(loaded, asked, as_json),
        Level::Model => text::model(graph),
        Level::Place => text::place(graph, plan),
        Level::Route => text::route(plan),
        Level::Orders => text::orders(&plan.orders),
        Level::Program => text::programs(plan),
    };
    Ok(if as_json {
        format!("{}\n", json!({ "schema": SCHEMA, "text": printed }))
    } else {
        printed
    })
}

/// Writes the plan into a file that runs as it stands, and says so.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save(loaded: &Loaded, asked: &str, file: &Path) -> Result<String, Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let text = saved::text(loaded, asked, folder.unwrap_or(Path::new(".")))?;
    let failed = |error| Failure::environment(format!("cannot write {}: {error}", file.display()));
    std::fs::write(file, text).map_err(failed)?;
    let path = file.display();
    Ok(format!("saved {path}: `troupe run {path}` runs it while its inputs stay as they are\n"))
}

fn parameters(loaded: &Loaded) -> u64 {
    loaded.graph.parameters().iter().map(|parameter| parameter.elements() as u64).sum()
}

/// What is known about a plan, for people or as JSON.
fn summary(loaded: &Loaded, asked: &Asked, as_json: bool) -> Result<String, Failure> {
    let profile = asked.profile.as_deref().map(profile::read).transpose()?;
    let found = consequences(loaded, profile.as_ref())?;
    let advice = if asked.advice { advised(loaded)? } else { Vec::new() };
    if as_json {
        return Ok(format!("{}\n", figures(loaded, &found, &advice)));
    }
    let mut page = sizes(loaded);
    if loaded.whole.has_phases() {
        page += &phases::table(&loaded.whole, &loaded.phases, Some(loaded.at));
    }
    page += &held(&found);
    page += &times(&found);
    for Expectation { field, bound, found, is_kept } in expectations(&loaded.job, &found) {
        let word = if is_kept { "kept" } else { "BROKEN" };
        let _ = writeln!(page, "expect    {field} {bound}: {word}, {found}");
    }
    for Advice { change, ranks, bytes: left, saves } in advice.iter().take(ADVICE) {
        let (left, saves) = (bytes(*left as usize), bytes(*saves as usize));
        let _ = writeln!(page, "or        {change}: {left} on {ranks} ranks, {saves} less");
    }
    Ok(page)
}

/// The single changes that lower the memory of the fullest rank.
fn advised(loaded: &Loaded) -> Result<Vec<Advice>, Failure> {
    let (job, graph) = (&loaded.job, &loaded.graph);
    let (_, train) = job.learner();
    let (spec, batch) = (job.plan(), loaded.plan.batch);
    let found = advice(graph, spec, batch, job.precision.dtype(), &train.optimizer, false);
    found.map_err(|mistakes| {
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failure { code: 3, text: said.join("; ") }
    })
}

/// The plan in its own words.
fn sizes(loaded: &Loaded) -> String {
    let (plan, job) = (&loaded.plan, &loaded.job);
    let (mesh, batch) = (plan.mesh, plan.batch);
    let name = job.plan_name().map_or("written in place".into(), |name| format!("`{name}`"));
    let lanes = batch.lanes.map_or(String::new(), |lanes| format!(" in {lanes} lanes"));
    let credits: usize = plan.channels.iter().map(|channel| channel.credits).sum();
    format!(
        "{}   {} parameters, plan {name}\n\
         mesh      {} ranks = pp {} x ep {} x dp {}, {} virtual stages each, on {}\n\
         schedule  {}, {} microbatches on each data rank\n\
         step      {} sequences of {} tokens{lanes}, {} steps\n\
         proof     {} channels with {credits} credits between {} programs: no deadlock for any \
         timing\n",
        job.name,
        grouped(parameters(loaded)),
        mesh.ranks(),
        mesh.pp,
        mesh.ep,
        mesh.dp,
        mesh.vpp,
        machine::cluster(job),
        job.plan().schedule().name(),
        batch.microbatches(mesh.data_ranks()),
        grouped(batch.sequences as u64),
        grouped(batch.context as u64),
        grouped(job.steps()),
        plan.channels.len(),
        2 * plan.programs.len(),
    )
}

/// The bytes of the fullest rank, and what they are.
fn held(found: &Consequences) -> String {
    let (stage, most) = found.fullest();
    let size = |count: u64| bytes(count as usize);
    let fits = if most <= found.limit { "fits" } else { "DOES NOT FIT" };
    let mut page = format!(
        "memory    {} of {} on a rank of stage {stage}, the fullest: {fits}\n",
        size(most),
        size(found.limit)
    );
    for actor in &found.memory.actors[stage] {
        if actor.total() == 0 {
            continue;
        }
        let side = format!("{:?}", actor.address.side).to_lowercase();
        let _ = writeln!(
            page,
            "  {side:<8}parameters {}, masters {}, states {}, messages {}, sums of others {}",
            size(actor.fixed.parameters),
            size(actor.fixed.masters),
            size(actor.fixed.states),
            size(actor.reserve.messages),
            size(actor.reserve.reduction),
        );
        let on_host = actor.host.bytes + actor.fixed.host;
        if on_host > 0 {
            let _ = writeln!(page, "          on the host up to {}", size(on_host));
        }
        let alive = actor.alive.iter().take(ALIVE).map(|it| match it.flights {
            0 => format!("{:?} {}", it.class, size(it.bytes)),
            flights => format!("{:?} {} of {flights}", it.class, size(it.bytes)),
        });
        let alive: Vec<String> = alive.collect();
        let _ = writeln!(page, "          peak {}: {}", size(actor.peak.bytes), alive.join(", "));
    }
    page
}

/// How long a step takes, what it waits for, and what it sends.
fn times(found: &Consequences) -> String {
    let outcome = &found.outcome;
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let idle = waits(found)
        .into_iter()
        .map(|(cause, part)| format!("{} {}", cause_word(cause), percent(part)));
    let idle: Vec<String> = idle.collect();
    let size = |count: f64| bytes(count as usize);
    let traffic = &found.traffic;
    format!(
        "time      {} a step, of which the optimizer phase {}: {} tokens/s, MFU {}\n\
         idle      {} of the programs' time; of the step, on average: {}\n\
         traffic   a step: pipeline {}, experts {}, replicas {}\n{}",
        time(outcome.makespan),
        time(outcome.makespan - outcome.program),
        grouped(outcome.tokens_per_second as u64),
        percent(outcome.mfu),
        percent(outcome.idle),
        idle.join(", "),
        size(traffic.pipeline),
        size(traffic.experts),
        size(traffic.replicas.total() as f64),
        exchanged(traffic.replicas),
    )
}

/// What replicas send each other, if there are any.
fn exchanged(sent: Exchange) -> String {
    let Exchange { gradients, momentum, updates, values } = sent;
    let kinds = [
        ("gradients", gradients),
        ("momentum", momentum),
        ("updates", updates),
        ("values", values),
    ];
    let there = kinds.iter().filter(|(_, count)| *count > 0);
    let told: Vec<String> =
        there.map(|(kind, count)| format!("{kind} {}", bytes(*count as usize))).collect();
    if told.is_empty() { String::new() } else { format!("  replicas  {}\n", told.join(", ")) }
}

/// The part of the step that an average rank waits for each cause.
fn waits(found: &Consequences) -> Vec<(Cause, f64)> {
    let outcome = &found.outcome;
    let whole = outcome.makespan * outcome.ranks.len() as f64;
    let part = |cause: Cause| {
        let ranks = outcome.ranks.iter();
        ranks.filter_map(|rank| rank.idle.get(&cause)).sum::<f64>() / whole
    };
    Cause::ALL.into_iter().map(|cause| (cause, part(cause))).filter(|it| it.1 > 0.0).collect()
}

fn figures(loaded: &Loaded, found: &Consequences, advice: &[Advice]) -> Value {
    let (plan, job) = (&loaded.plan, &loaded.job);
    let (mesh, batch) = (plan.mesh, plan.batch);
    let expect = expectations(job, found).into_iter().map(
        |it| json!({ "field": it.field, "bound": it.bound, "found": it.found, "kept": it.is_kept }),
    );
    let idle =
        waits(found).into_iter().map(|(cause, part)| (cause_word(cause).into(), part.into()));
    let mut answer = json!({
        "schema": SCHEMA,
        "job": job.name,
        "plan": job.plan_name(),
        "hash": saved::hash(plan),
        "parameters": parameters(loaded),
        "mesh": { "pp": mesh.pp, "vpp": mesh.vpp, "ep": mesh.ep, "dp": mesh.dp },
        "ranks": mesh.ranks(),
        "sequences": batch.sequences,
        "context": batch.context,
        "microbatches": batch.microbatches(mesh.data_ranks()),
        "lanes": batch.lanes,
        "zero": plan.zero,
        "chunks": plan.chunks.len(),
        "channels": plan.channels.len(),
        "steps": job.steps(),
        "step_seconds": found.outcome.makespan,
        "tokens_per_second": found.outcome.tokens_per_second,
        "mfu": found.outcome.mfu,
        "bubble": found.outcome.idle,
        "idle": idle.collect::<serde_json::Map<_, _>>(),
        "memory_limit": found.limit,
        "memory": found.memory,
        "traffic": {
            "pipeline": found.traffic.pipeline,
            "experts": found.traffic.experts,
            "replicas": found.traffic.replicas.total(),
            "exchange": found.traffic.replicas,
        },
        "expect": expect.collect::<Vec<_>>(),
        "advice": advice,
    });
    if let Some(name) = &loaded.phase().name {
        answer["phase"] = name.as_str().into();
        answer["phases"] = loaded.phases.iter().map(phases::figures).collect::<Vec<_>>().into();
    }
    answer
}
