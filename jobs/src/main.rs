//! The command line: a table from verbs to functions.

mod arguments;

use std::{io::IsTerminal, num::NonZeroUsize, process::ExitCode, rc::Rc};

use clap::{CommandFactory, Parser};
use graphs::schedule::Pipeline;
use jobs::{
    Loaded, Report, Request,
    commands::{
        bench, check, diff, doctor, eval, explain, export, import, measure, plan, resolve, run,
        sample, schedule, search, simulate, verify, viz,
    },
    exit::Failure,
    job::{Model, Precision},
    load, load_model,
    processes::{self, Refusal},
    profile,
    view::scene::{Scene, Unit, published},
};
use kernels::gemm::isa::Isa;
use runtime::processes::Processes;

use crate::arguments::{
    Arguments, BenchArguments, DiffArguments, JobArguments, PhaseArguments, PlanArguments,
    ScheduleArguments, SearchArguments, Verb, VizArguments,
};

/// Two jobs differ, and the user asked for a code that says so.
const DIFFERENT: u8 = 5;

/// The job is not valid.
const INVALID: u8 = 3;

fn main() -> ExitCode {
    kernels::memory::keep_freed();
    let arguments = Arguments::parse();
    silence_actors();
    let json = arguments.json;
    let goes_over = matches!(arguments.verb, Verb::Run { .. } | Verb::Resume { .. });
    let processes = match processes::joined(goes_over) {
        Ok(processes) => processes,
        Err(Refusal { failure, speaks: true }) => return told(&failure.into(), json).into(),
        Err(Refusal { failure, speaks: false }) => return failure.code.into(),
    };
    let ended = verb(arguments, processes.clone());
    let code = match (&ended, &processes) {
        (Ok(code), _) => *code,
        (Err(ended), Some(all)) if !all.conducts() => {
            let code = processes::failed(all, &ended.failure());
            code.unwrap_or_else(|| told(ended, json))
        }
        (Err(ended), _) => told(ended, json),
    };
    if let Some(processes) = processes {
        processes.leave(code);
    }
    code.into()
}

/// Tells why a verb did not do what it should; returns the exit code.
fn told(ended: &Ended, json: bool) -> u8 {
    match ended {
        Ended::Report(report) => complain(report, json),
        Ended::Failure(failure) => {
            if json {
                println!("{}", failed(failure));
            }
            eprintln!("error: {failure}");
        }
    }
    ended.failure().code
}

/// A panic of an actor is caught and told as the failure of its step; only one of this thread is
/// printed where it happens.
///
/// `println!` panics when standard output is gone. That is no mistake of this program, so it ends
/// without a word if the reader left, as `head` does, and else with the reason.
fn silence_actors() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some("main") {
            return;
        }
        match panic.payload_as_str() {
            Some(lost) if lost.starts_with("failed printing to std") => {
                if !lost.contains("Broken pipe") {
                    eprintln!("error: {lost}");
                }
                std::process::exit(i32::from(Failure::environment(String::new()).code));
            }
            _ => print(panic),
        }
    }));
}

/// Why a verb did not do what it should.
enum Ended {
    Report(Box<Report>),
    Failure(Failure),
}

impl Ended {
    /// The exit code, and the same in plain words.
    fn failure(&self) -> Failure {
        match self {
            Ended::Report(report) => Failure { code: INVALID, text: report.human(false) },
            Ended::Failure(Failure { code, text }) => Failure { code: *code, text: text.clone() },
        }
    }
}

impl From<Box<Report>> for Ended {
    fn from(report: Box<Report>) -> Self {
        Ended::Report(report)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failure(failure)
    }
}

fn verb(arguments: Arguments, processes: Option<Rc<Processes>>) -> Result<u8, Ended> {
    let json = arguments.json;
    Isa::chosen().map_err(|error| Failure::environment(error.to_string()))?;
    let options =
        |data, dir, quiet| run::Options { data, dir, quiet, json, processes, ..Default::default() };
    let text = match arguments.verb {
        Verb::Check { job } => check::check(&loaded(job)?, json)?,
        Verb::Plan(asked) => planned(asked, json)?,
        Verb::Diff(asked) => return difference(asked, json),
        Verb::Search(asked) => searched(asked, json)?,
        Verb::Simulate { job, profile, slow, jitter, seed } => {
            let asked = simulate::Asked { profile, slow, jitter, seed };
            simulate::simulate(&looked_at(job)?, &asked, json)?
        }
        Verb::Measure { job, output, repeats } => {
            measure::run(&looked_at(job)?.job, &output, repeats.get(), json)?
        }
        Verb::Schedule(asked) => bare_orders(&asked, json)?,
        Verb::Resolve { job, origin, model } => {
            let part = match (origin, model) {
                (true, _) => resolve::Part::Origins,
                (_, true) => resolve::Part::Model,
                _ => resolve::Part::Job,
            };
            resolve::resolve(&loaded(job)?, part, json)?
        }
        Verb::Doctor => doctor::doctor(json),
        Verb::Explain { name } => explain::explain(name.as_deref(), json)?,
        Verb::Viz(asked) => return drawn(asked, json),
        Verb::Run { job, data, dir, quiet, trace, trace_step, force } => {
            let loaded = loaded(job)?;
            let trace = trace.map(|dir| run::Tracing { dir, steps: trace_step });
            let options = run::Options { trace, force, ..options(data, dir, quiet) };
            return Ok(run::run(&loaded.whole, &loaded.text(), &options)?);
        }
        Verb::Resume { dir, data, quiet } => {
            return Ok(run::resume(&dir, &options(data, None, quiet))?);
        }
        Verb::Verify { job, plans, steps, data } => {
            let loaded = looked_at(job)?;
            return Ok(verify::verify(&loaded, &plans, steps, &options(data, None, false))?);
        }
        Verb::Bench(asked) => return measured(asked, json),
        Verb::Generate { from, prompt, tokens, temperature, top_p, seed, samples, precision } => {
            let taste = sample::Taste { tokens, temperature, top_p, seed, samples };
            return Ok(sample::generate(&from, &prompt, &taste, precision.dtype(), json)?);
        }
        Verb::Import { from } => import::import(&from, json)?,
        Verb::Eval { from, file, tokens } => {
            let text = match (file, tokens) {
                (Some(path), _) => eval::Text::File(path),
                (None, tokens) => eval::Text::Tokens(tokens.unwrap_or_default()),
            };
            return Ok(eval::eval(&from, &text, json)?);
        }
        Verb::Export { from, to, dtype } => return Ok(export::export(&from, &to, dtype.dtype())?),
        Verb::InitModel { model, to, seed, dtype } => {
            return init_model(&model, seed, &to, dtype.into());
        }
        Verb::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "troupe", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
    };
    print!("{text}");
    Ok(0)
}

fn loaded(job: JobArguments) -> Result<Loaded, Box<Report>> {
    looked_at(PhaseArguments { job, phase: None })
}

fn looked_at(asked: PhaseArguments) -> Result<Loaded, Box<Report>> {
    let PhaseArguments { job, phase } = asked;
    load(&Request { job: job.job, plan: job.plan, sets: job.sets, phase })
}

/// Prints a plan, or saves it.
fn planned(asked: PlanArguments, json: bool) -> Result<String, Ended> {
    let PlanArguments { job, level, profile, advice, output } = asked;
    let command = job.job.to_string();
    let loaded = looked_at(job)?;
    Ok(match output {
        Some(file) => plan::save(&loaded, &command, &file)?,
        None => plan::plan(&loaded, level, &plan::Asked { profile, advice }, json)?,
    })
}

/// Measures how quickly a job's model is trained, or writes.
fn measured(asked: BenchArguments, json: bool) -> Result<u8, Ended> {
    let BenchArguments { steps, sequences, context, batch, prompt_tokens, new_tokens, .. } = asked;
    let loaded = looked_at(asked.job)?;
    if asked.generate {
        let size = bench::writing::Size { batch, prompt_tokens, new_tokens };
        return Ok(bench::writing::bench(&loaded.job, size, json)?);
    }
    if asked.products {
        bench::products(json);
        return Ok(0);
    }
    if asked.storage {
        bench::storage(json);
        return Ok(0);
    }
    let size = bench::Size { sequences, context, steps };
    if asked.parts {
        return Ok(bench::parts(loaded.phase(), size, json)?);
    }
    let peak = asked.peak.map(|tera| tera * 1e12);
    Ok(bench::bench(loaded.phase(), size, peak, json)?)
}

/// Looks for plans.
fn searched(asked: SearchArguments, json: bool) -> Result<String, Ended> {
    let loaded = looked_at(asked.job)?;
    let asked = search::Asked {
        ranks: asked.ranks.map(NonZeroUsize::get),
        limit: asked.limit.map(|limit| limit.0),
        microbatches: asked.microbatches.into_iter().map(NonZeroUsize::get).collect(),
        meshes: asked.meshes.get(),
        policies: asked.policies,
        top: asked.top.get(),
        profile: asked.profile,
        output: asked.output,
    };
    Ok(search::search(&loaded, &asked, json)?)
}

/// Compares two jobs, or a job with itself under other settings.
fn difference(asked: DiffArguments, json: bool) -> Result<u8, Ended> {
    let DiffArguments { before, after, plan, phase, sets, exit_code } = asked;
    let first = JobArguments { job: before.clone(), plan: None, sets: Vec::new() };
    let second = JobArguments { job: after.unwrap_or(before), plan, sets };
    let read = |job| looked_at(PhaseArguments { job, phase: phase.clone() });
    let answer = diff::diff(&read(first)?, &read(second)?, json)?;
    print!("{}", answer.text);
    Ok(if exit_code && !answer.is_same { DIFFERENT } else { 0 })
}

/// Draws a schedule, files of orders or the plans of a job.
fn drawn(asked: VizArguments, json: bool) -> Result<u8, Ended> {
    let costs = asked.cost.as_deref().map(schedule::costs).transpose()?;
    let units = costs.map_or_else(|| schedule::costs(""), Ok)?;
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let mut origin = vec![("command".to_string(), format!("troupe {command}"))];
    let first = asked.schedule.iter().chain(&asked.what).next().cloned().unwrap_or_default();
    let others = || asked.compare.iter();
    let mut steps = Vec::new();
    if asked.schedule.is_some() {
        let VizArguments { pp: stages, vpp: virtual_stages, microbatches, .. } = asked;
        let pipeline = Pipeline { stages, virtual_stages, microbatches };
        for name in std::iter::once(&first).chain(others()) {
            steps.push(viz::of_schedule(name, pipeline, &units)?);
        }
    } else if first.ends_with(".csv") {
        for file in std::iter::once(&first).chain(others()) {
            steps.push(viz::of_file(file.as_ref(), &units)?);
        }
    } else {
        let speed = match (&costs, &asked.trace) {
            (Some(costs), _) => viz::Speed::Costs(*costs),
            (None, trace) => viz::Speed::Prices {
                profile: asked.profile.as_deref().map(profile::read).transpose()?,
                trace: trace.clone(),
            },
        };
        for plan in std::iter::once(asked.plan.as_ref()).chain(others().map(Some)) {
            let (job, sets, phase) = (first.clone(), asked.sets.clone(), asked.phase.clone());
            let job = JobArguments { job, plan: plan.cloned(), sets };
            let loaded = looked_at(PhaseArguments { job, phase })?;
            steps.push(viz::of_job(&loaded, &speed)?);
            if steps.len() == 1 {
                origin.extend(viz::origin(&loaded));
            }
        }
    }
    let format = asked.format.or(asked.text.then_some(viz::Format::Text));
    let title = if first.ends_with(".csv") { first } else { published(&first).to_string() };
    if steps.iter().all(|step| step.unit == Unit::Units) {
        origin.push(("cost".into(), asked.cost.unwrap_or("F=1,I=1,W=1,comm=0".into())));
    }
    let VizArguments { output: file, width, memory, .. } = asked;
    let scene = Scene { title, steps, origin };
    let bytes = viz::draw(scene, &viz::Target { file, format, width, memory }, json)?;
    std::io::Write::write_all(&mut std::io::stdout(), &bytes)
        .map_err(|error| Failure::environment(format!("standard output: {error}")))?;
    Ok(0)
}

/// Prints, checks or simulates orders without a job.
fn bare_orders(asked: &ScheduleArguments, json: bool) -> Result<String, Failure> {
    if let Some(file) = &asked.check {
        return schedule::check(&schedule::read(file)?, asked.credits, json);
    }
    if let Some(file) = &asked.simulate {
        let costs = schedule::costs(&asked.cost)?;
        return schedule::time(&schedule::read(file)?, &costs, json);
    }
    let options = schedule::Options {
        extra_warmup: asked.extra_warmup,
        group: asked.group,
        split_backward: asked.split_backward,
        paired: asked.paired,
    };
    let rule = schedule::named(asked.name.as_deref().unwrap_or_default())?;
    let rule = options.applied(rule)?;
    let pipeline = Pipeline {
        stages: asked.pp,
        virtual_stages: asked.vpp.or(rule.virtual_stages()).unwrap_or(1),
        microbatches: asked.microbatches,
    };
    schedule::write(&schedule::print(&rule, pipeline, asked.comms)?, &asked.csv, json)
}

fn init_model(model: &str, seed: u64, to: &std::path::Path, dtype: Precision) -> Result<u8, Ended> {
    let Model::Decoder(decoder) = load_model(model)? else {
        let message = format!("{model} is no Decoder(..), and other models have no such folder");
        return Err(Failure::usage(message).into());
    };
    Ok(export::init_model(&decoder, seed, to, dtype.dtype())?)
}

/// Prints the error page; on a terminal in colour, unless `NO_COLOR` is set.
fn complain(report: &Report, json: bool) {
    if json {
        println!("{}", report.json());
        return;
    }
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    eprint!("{}", report.human(std::io::stderr().is_terminal() && !is_plain));
}

/// A failure that is no mistake in a job, in the form of the others.
fn failed(failure: &Failure) -> serde_json::Value {
    let error = serde_json::json!({
        "code": format!("E{}", failure.code), "message": failure.text, "places": [], "help": null,
    });
    serde_json::json!({ "schema": jobs::report::SCHEMA, "errors": [error] })
}
