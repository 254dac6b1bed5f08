//! `run` and `resume`: train a job from its beginning, or go on from its newest checkpoint.

mod follower;
mod introduction;
mod phases;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runtime::{Cluster, Inference, checkpoint::State, processes::Processes};
use serde_json::json;

use crate::{
    commands::sample::{self, Taste},
    data::Tokenizer,
    device,
    exit::{Failure, INTERRUPTED},
    folder, huggingface,
    job::{Export, Job, Metrics, Stop as JobStop},
    prepare,
    quantity::Every as JobEvery,
    train::{Checkpoints, Every, Orders, Outcome, Stop, Trace, train},
    view::plot::{Curve, Plot},
};

use self::phases::{Lowered, Ready, Told, Trained};

/// What the sample at the end of a run begins with.
const PROMPT: &str = "pub fn";

/// What `run` and `resume` are told beside the job.
#[derive(Debug, Default)]
pub struct Options {
    /// A folder of text files in place of the job's corpora.
    pub data: Option<PathBuf>,
    /// Folder of the run in place of the job's.
    pub dir: Option<PathBuf>,
    /// No progress.
    pub quiet: bool,
    /// Machine-readable summary.
    pub json: bool,
    /// What is recorded, if anything.
    pub trace: Option<Tracing>,
    /// Begin even if the plan holds more than its devices do.
    pub force: bool,
    /// The processes that the run goes over, if there are several.
    pub processes: Option<Rc<Processes>>,
}

impl Options {
    /// The processes that this one follows, if it does not conduct.
    fn followed(&self) -> Option<&Processes> {
        self.processes.as_deref().filter(|processes| !processes.conducts())
    }
}

/// Which steps are recorded, and where.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Folder of the recorded steps.
    pub dir: PathBuf,
    /// Steps to record, counted from the start of training.
    pub steps: Vec<u64>,
}

/// Everything about a run that does not change while it trains.
struct Run<'a> {
    job: &'a Job,
    text: &'a str,
    dir: PathBuf,
    options: &'a Options,
}

/// Trains a job from its beginning; `text` is the resolved job.
///
/// # Errors
///
/// A [`Failure`] with the exit code of its cause.
pub fn run(job: &Job, text: &str, options: &Options) -> Result<u8, Failure> {
    let job = &placed(job, options)?;
    if let Some(processes) = options.followed() {
        return follower::follow(job, None, options, processes);
    }
    let dir = match &options.dir {
        Some(dir) => folder::create(dir, false)?,
        None => folder::create(&wanted(job), true)?,
    };
    Run { job, text, dir, options }.start(None)
}

/// The job with its ranks where the run lets them compute.
fn placed(job: &Job, options: &Options) -> Result<Job, Failure> {
    if options.processes.is_some() { device::on_processors(job) } else { Ok(job.clone()) }
}

/// The folder that a job names for its run.
fn wanted(job: &Job) -> PathBuf {
    let named = job.checkpoint.as_ref().map(|checkpoint| checkpoint.dir.clone());
    named.unwrap_or_else(|| Path::new("runs").join(&job.name))
}

/// Goes on from the newest checkpoint in a folder.
///
/// # Errors
///
/// As [`run`], and that there is no checkpoint.
pub fn resume(dir: &Path, options: &Options) -> Result<u8, Failure> {
    let newest = folder::newest(dir)?;
    let (state, dir) = match newest {
        Some(step) if step == dir => (Some(State::load(&step)?), parent(&step)),
        Some(step) => (Some(State::load(&step)?), dir.to_path_buf()),
        None => (None, dir.to_path_buf()),
    };
    let text = match &state {
        Some(state) => state.job.clone(),
        None => std::fs::read_to_string(dir.join("job.ron"))
            .map_err(|_| folder::FolderError::NoModel(dir.clone()))?,
    };
    let job =
        crate::load_resolved(&text).map_err(|_| folder::FolderError::Job(dir.join("job.ron")))?;
    let job = &placed(&job, options)?;
    if let Some(processes) = options.followed() {
        return follower::follow(job, state, options, processes);
    }
    Run { job, text: &text, dir, options }.start(state)
}

fn parent(step: &Path) -> PathBuf {
    step.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

impl Run<'_> {
    /// Trains phase after phase, each from what the one before left in memory.
    fn start(&self, state: Option<State>) -> Result<u8, Failure> {
        let Options { data, force, processes, .. } = self.options;
        let lowered = phases::lowered(self.job, *force, processes.as_deref())?;
        let (ready, tokenizer) = phases::ready(lowered, data.as_ref())?;
        // Written once nothing but training is left to fail: a folder with a job is taken.
        folder::put(&self.dir.join("job.ron"), self.text)?;
        folder::put(&self.dir.join("tokenizer.json"), &json_of(&tokenizer)?)?;
        self.introduce(&ready[0].lowered.network);
        let interrupted = stop_on_interrupt(true);
        let trained = self.train(ready, state, &interrupted)?;
        let dtype = self.job.precision.dtype();
        let tensors = &trained.outcome.state.tensors;
        let inference = Inference::new(trained.graph.clone(), tensors, dtype)?;
        let export = self.export(&trained, &tokenizer)?;
        self.conclude(&trained, &inference, &tokenizer, export)
    }

    /// Trains all phases that are left of a run.
    fn train(
        &self,
        ready: Vec<Ready>,
        state: Option<State>,
        interrupted: &AtomicBool,
    ) -> Result<Trained, Failure> {
        let done = state.as_ref().map_or(0, |state| state.step);
        let mut left = phases::left(ready, done, self.job.steps());
        let first = left.next().expect("the last phase is always left");
        let mut trained = self.phase(first, state, interrupted)?;
        for next in left {
            if trained.outcome.interrupted || interrupted.load(Ordering::Relaxed) {
                trained.outcome.interrupted = true;
                break;
            }
            let Outcome { mut losses, state, saved, .. } = trained.outcome;
            if let (Some(processes), Some(saved)) = (&self.options.processes, &saved) {
                processes.go_on(saved);
            }
            trained = self.phase(next, Some(state), interrupted)?;
            losses.append(&mut trained.outcome.losses);
            trained.outcome.losses = losses;
        }
        Ok(trained)
    }

    /// Trains one phase, or what is left of it.
    fn phase(
        &self,
        mut ready: Ready,
        state: Option<State>,
        interrupted: &AtomicBool,
    ) -> Result<Trained, Failure> {
        self.introduce_phase(&ready);
        if let Some(state) = &state {
            ready.read_on(state)?;
        }
        let orders = self.orders(&ready);
        let Ready { lowered, text, unigram, .. } = ready;
        let Lowered { phase, network, plan } = lowered;
        let decoder = network.decoder.clone();
        let setup = prepare::setup(&phase, network, plan, state)?;
        if !self.options.quiet {
            eprintln!("on     {}", self.told(&setup));
        }
        let mut cluster = match &self.options.processes {
            None => Cluster::start(setup, Box::new(text))?,
            Some(processes) => Cluster::spread(setup, Box::new(text), processes)?,
        };
        let graph = cluster.graph().clone();
        let outcome = train(&mut cluster, &orders, interrupted)?;
        Ok(Trained { phase, graph, decoder, outcome, unigram })
    }

    fn orders(&self, ready: &Ready) -> Orders {
        let Lowered { phase, plan, .. } = &ready.lowered;
        let every = |every| match every {
            JobEvery::Steps(steps) => Every::Steps(steps),
            JobEvery::Seconds(seconds) => Every::Time(Duration::from_secs(seconds)),
        };
        let checkpoints = Checkpoints {
            dir: self.dir.clone(),
            every: self.job.checkpoint.as_ref().map(|c| every(c.every)),
            keep: self.job.checkpoint.as_ref().map_or(1, |c| c.keep),
        };
        let named = self.job.metrics.iter().map(|Metrics::Jsonl(path)| self.moved(path));
        let own = self.dir.join("metrics.jsonl");
        let trace = self.options.trace.clone();
        Orders {
            stop: match self.job.stop {
                Some(JobStop::Tokens(tokens)) if phase.name.is_none() => Stop::Tokens(tokens.0),
                _ => Stop::Steps(phase.end.min(self.job.steps())),
            },
            phase: phase.name.clone(),
            checkpoints: Some(checkpoints),
            metrics: named.filter(|path| *path != own).chain([own.clone()]).collect(),
            job: self.text.to_string(),
            quiet: self.options.quiet,
            trace: trace.map(|Tracing { dir, steps }| Trace {
                dir,
                steps,
                name: self.job.name.clone(),
                plan: plan.clone(),
            }),
        }
    }

    /// A path of the job, in the folder that the run really has if it named the job's.
    fn moved(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(wanted(self.job)) {
            Ok(rest) => self.dir.join(rest),
            Err(_) => path.to_path_buf(),
        }
    }

    /// Writes the model as the last phase trained it, rotation and context included.
    fn export(&self, trained: &Trained, tokenizer: &Tokenizer) -> Result<Option<PathBuf>, Failure> {
        let wanted = self.job.checkpoint.as_ref().and_then(|c| c.export.as_ref());
        let outcome = &trained.outcome;
        let (Some(Export::HuggingFace { dtype }), Some(decoder), false) =
            (wanted, &trained.decoder, outcome.interrupted)
        else {
            return Ok(None);
        };
        let dir = self.dir.join("export");
        let context = trained.phase.job.learner().1.context.0 as usize;
        let tensors = crate::commands::export::weights(&outcome.state.tensors);
        let dtype = dtype.dtype();
        huggingface::write(&dir, decoder, context, &tensors, tokenizer, dtype)
            .map_err(prepare::PrepareError::from)?;
        Ok(Some(dir))
    }

    fn conclude(
        &self,
        trained: &Trained,
        inference: &Inference,
        tokenizer: &Tokenizer,
        export: Option<PathBuf>,
    ) -> Result<u8, Failure> {
        let (outcome, unigram) = (&trained.outcome, trained.unigram);
        let levels = [("word frequencies alone", unigram)];
        let title = format!("loss of {}", self.job.name);
        let curves = [Curve { name: "", points: &outcome.losses }];
        let plot = Plot { title: &title, curves: &curves, levels: &levels };
        folder::put(&self.dir.join("loss.svg"), &plot.svg())?;
        let (seed, samples) = (self.job.seed, NonZeroUsize::MIN);
        let taste = Taste { tokens: 96, temperature: 0.7, top_p: 0.95, seed, samples };
        let written = sample::write(inference, tokenizer, PROMPT, &taste)?.concat();
        let last = outcome.losses.last().map(|(_, loss)| *loss);
        if self.options.json {
            println!("{}", self.summary(outcome, unigram, last, export.as_deref()));
        } else {
            println!("\n{}", plot.terminal(64, 12));
            println!("the model writes:\n{}\n", indented(&format!("{PROMPT}{written}")));
            let say = |what: &str, path: Option<&Path>| {
                if let Some(path) = path {
                    println!("{what:<12}{}", path.display());
                }
            };
            say("checkpoint", outcome.saved.as_deref());
            say("export", export.as_deref());
            say("metrics", Some(&self.dir.join("metrics.jsonl")));
            for phase in phases::told(self.job, &outcome.losses) {
                println!("phase       {phase}");
            }
            println!("{}", self.last_words(outcome, unigram, last));
        }
        Ok(if outcome.interrupted { INTERRUPTED } else { 0 })
    }

    fn last_words(&self, outcome: &Outcome, unigram: f64, last: Option<f64>) -> String {
        let dir = self.dir.display();
        match (outcome.interrupted, last) {
            (true, _) => format!("stopped as asked; `troupe resume {dir}` goes on"),
            (false, Some(last)) => {
                let first = outcome.losses[0].1;
                format!("loss {first:.3} -> {last:.3}; word frequencies alone: {unigram:.3}")
            }
            (false, None) => "nothing was left to do".into(),
        }
    }

    fn summary(
        &self,
        outcome: &Outcome,
        unigram: f64,
        last: Option<f64>,
        export: Option<&Path>,
    ) -> serde_json::Value {
        let mut summary = json!({
            "schema": 1,
            "job": self.job.name,
            "steps": outcome.state.step,
            "tokens": outcome.state.tokens,
            "loss": last,
            "first_loss": outcome.losses.first().map(|(_, loss)| *loss),
            "unigram_loss": unigram,
            "interrupted": outcome.interrupted,
            "checkpoint": outcome.saved,
            "export": export,
        });
        if self.job.has_phases() {
            let told = phases::told(self.job, &outcome.losses);
            summary["phases"] = told.iter().map(Told::json).collect::<Vec<_>>().into();
        }
        summary
    }
}

fn json_of(tokenizer: &Tokenizer) -> Result<String, Failure> {
    Ok(tokenizer.to_json().map_err(prepare::PrepareError::from)?)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// A flag that the first interrupt sets; the second ends the process at once. A process that does
/// not conduct says nothing: it ends when the conductor does.
fn stop_on_interrupt(conducts: bool) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    let installed = ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        if conducts {
            eprintln!("\nstopping after this step; once more to stop now");
        }
    });
    if let Err(error) = installed {
        eprintln!("warning: an interrupt will not be graceful: {error}");
    }
    flag
}
