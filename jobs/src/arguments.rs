//! The verbs of the command line and what they take.

use std::{fmt, num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jobs::job::Precision;

mod planning;

pub use self::planning::{
    DiffArguments, PlanArguments, ScheduleArguments, SearchArguments, VizArguments,
};

/// Trains mixture-of-experts language models the way Kimi K2 was trained, from one job file.
#[derive(Parser)]
#[command(name = "troupe", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// Print machine-readable JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What is to be done.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  troupe run k2-nano                          train a library job
  troupe check job.ron --set plan.mesh.pp=8   check a job with one field changed
  troupe explain P104                         what an error code means";

/// A job and what is laid over it.
#[derive(Args)]
pub struct JobArguments {
    /// Path of a job file, or name of a library job.
    pub job: String,
    /// Plan to run: one of the job's, or a file.
    #[arg(long, value_name = "NAME|FILE")]
    pub plan: Option<String>,
    /// Change one field, as `path=value`; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
}

/// A job of whose phases one is looked at.
#[derive(Args)]
pub struct PhaseArguments {
    /// The job.
    #[command(flatten)]
    pub job: JobArguments,
    /// Phase to look at; left out: the first.
    #[arg(long, value_name = "NAME")]
    pub phase: Option<String>,
}

impl fmt::Display for JobArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.job)?;
        self.plan.iter().try_for_each(|plan| write!(f, " --plan {plan}"))?;
        self.sets.iter().try_for_each(|set| write!(f, " --set '{set}'"))
    }
}

/// A number format.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// Single precision.
    F32,
    /// The upper half of an F32.
    Bf16,
}

impl From<Format> for Precision {
    fn from(format: Format) -> Self {
        match format {
            Format::F32 => Precision::F32,
            Format::Bf16 => Precision::Bf16,
        }
    }
}

impl Format {
    /// The format that tensors know.
    pub fn dtype(self) -> ops::DType {
        Precision::from(self).dtype()
    }
}

/// What is measured.
#[derive(Args)]
pub struct BenchArguments {
    #[command(flatten)]
    pub job: PhaseArguments,
    /// Steps that are measured, after two that warm up.
    #[arg(long, default_value = "10", conflicts_with = "generate")]
    pub steps: NonZeroUsize,
    /// Sequences of a step.
    #[arg(long, default_value_t = 8, conflicts_with = "generate")]
    pub sequences: usize,
    /// Tokens of a sequence.
    #[arg(long, default_value_t = 256, conflicts_with = "generate")]
    pub context: usize,
    /// Rate of products that MFU is a share of; left out: that of a known GPU, in BF16.
    #[arg(long, value_name = "TFLOPS", value_parser = rate, conflicts_with = "generate")]
    pub peak: Option<f64>,
    /// Write instead of training: new tokens per second over all texts, the likeliest each time,
    /// with fresh weights. Reading the prompts is not counted.
    #[arg(long)]
    pub generate: bool,
    /// Measure every part of a step against its floor, too.
    #[arg(long, conflicts_with = "generate")]
    pub parts: bool,
    /// Measure matrix products alone.
    #[arg(long, conflicts_with_all = ["generate", "parts"])]
    pub products: bool,
    /// Measure the storage of activations in FP8 alone.
    #[arg(long, conflicts_with_all = ["generate", "parts", "products"])]
    pub storage: bool,
    /// Texts written side by side.
    #[arg(long, default_value = "1", requires = "generate")]
    pub batch: NonZeroUsize,
    /// Tokens of each prompt.
    #[arg(long, default_value = "16", requires = "generate")]
    pub prompt_tokens: NonZeroUsize,
    /// New tokens of each text.
    #[arg(long, default_value = "64", requires = "generate")]
    pub new_tokens: NonZeroUsize,
}

/// A rate that something can be a share of.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if rate.is_finite() && 0.0 < rate { Ok(rate) } else { Err("expected more than zero".into()) }
}

/// What can be done.
#[derive(Subcommand)]
pub enum Verb {
    /// Check everything about a job that can be known without running it.
    Check {
        #[command(flatten)]
        job: JobArguments,
    },
    /// Print what a job's plan comes to, or what it lowers to.
    Plan(PlanArguments),
    /// Print what a job would set, and cause, otherwise than another, or under another plan.
    Diff(DiffArguments),
    /// Look for better plans, and say why the others lost.
    Search(SearchArguments),
    /// Simulate one step: how long it takes, and what each rank waits for.
    Simulate {
        #[command(flatten)]
        job: PhaseArguments,
        /// Prices as measured: a file that `measure` wrote.
        #[arg(long, value_name = "FILE")]
        profile: Option<PathBuf>,
        /// Slow down a pipeline rank, as `rank=factor`; may be repeated.
        #[arg(long, value_name = "RANK=FACTOR")]
        slow: Vec<String>,
        /// Standard deviation of the time of each computation, relative to it.
        #[arg(long, default_value_t = 0.0)]
        jitter: f64,
        /// Key of the jitter.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Measure what a job's operators, messages and updates take on this machine.
    Measure {
        #[command(flatten)]
        job: PhaseArguments,
        /// Profile to write.
        #[arg(long, short, value_name = "FILE", default_value = "profile.ron")]
        output: PathBuf,
        /// Passes over the model, after one that warms up.
        #[arg(long, default_value = "10")]
        repeats: NonZeroUsize,
    },
    /// Print the orders of a schedule, or check or simulate orders from a file.
    Schedule(ScheduleArguments),
    /// Print the final job, after all files, presets and arguments.
    Resolve {
        #[command(flatten)]
        job: JobArguments,
        /// Print where each value came from and what it beat.
        #[arg(long, conflicts_with = "model")]
        origin: bool,
        /// Print the model as a graph.
        #[arg(long)]
        model: bool,
    },
    /// Say what this machine has for training, what is missing, and what to do about it.
    Doctor,
    /// Explain an error code, field, variant, preset, or `exit`; without a name, list them.
    Explain {
        /// What is to be explained.
        name: Option<String>,
    },
    /// Draw a step: of a job's plan, of a recorded run, of orders, of a schedule.
    Viz(VizArguments),
    /// Train a job.
    Run {
        #[command(flatten)]
        job: JobArguments,
        /// Folder of text files, in place of the job's corpora.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Folder of the run, in place of the job's.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// No progress.
        #[arg(long, short)]
        quiet: bool,
        /// Record what every actor does in some steps, into this folder.
        #[arg(long, value_name = "FOLDER")]
        trace: Option<PathBuf>,
        /// Steps to record, between commas.
        #[arg(long, requires = "trace", value_delimiter = ',', default_value = "3")]
        trace_step: Vec<u64>,
        /// Begin even if the plan holds more than its devices do.
        #[arg(long)]
        force: bool,
    },
    /// Go on from the newest checkpoint of a run.
    Resume {
        /// Folder of the run.
        dir: PathBuf,
        /// Folder of text files, in place of the job's corpora.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// No progress.
        #[arg(long, short)]
        quiet: bool,
    },
    /// Train the same steps under several plans and compare every bit.
    Verify {
        #[command(flatten)]
        job: PhaseArguments,
        /// Plans to compare, between commas; all of the job's if left out.
        #[arg(long, value_delimiter = ',')]
        plans: Vec<String>,
        /// Steps of each.
        #[arg(long, default_value = "3")]
        steps: NonZeroUsize,
        /// Folder of text files, in place of the job's corpora.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Measure the speed of training, or of writing.
    Bench(BenchArguments),
    /// Let a trained model write.
    Generate {
        /// Folder of a run, a checkpoint or an export.
        from: PathBuf,
        /// How the text begins.
        #[arg(long, default_value = "")]
        prompt: String,
        /// Tokens at most.
        #[arg(long, default_value_t = 128)]
        tokens: usize,
        /// 0 takes the likeliest token each time.
        #[arg(long, default_value_t = 0.7)]
        temperature: f32,
        /// Mass of the tokens that are drawn from.
        #[arg(long, default_value_t = 0.95)]
        top_p: f32,
        /// Key of the random numbers.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Texts to write, each with random numbers of its own; the first is that of `1`.
        #[arg(long, default_value = "1")]
        samples: NonZeroUsize,
        /// Format in which the model computes.
        #[arg(long, value_enum, default_value = "f32")]
        precision: Format,
    },
    /// Print the likelihood of every token of a text after the first.
    Eval {
        /// Folder of a run, a checkpoint or an export.
        from: PathBuf,
        /// A text file.
        #[arg(long, conflicts_with = "tokens", required_unless_present = "tokens")]
        file: Option<PathBuf>,
        /// Token numbers, between blanks.
        #[arg(long)]
        tokens: Option<String>,
    },
    /// Write a trained model as a folder that transformers loads.
    Export {
        /// Folder of a run or a checkpoint.
        from: PathBuf,
        /// Folder to write.
        to: PathBuf,
        /// Format of the weights.
        #[arg(long, value_enum, default_value = "f32")]
        dtype: Format,
    },
    /// Check a folder of transformers and print its model for a job.
    Import {
        /// The folder.
        from: PathBuf,
    },
    /// Write a model with fresh weights as a folder that transformers loads.
    InitModel {
        /// File with a `Decoder(..)`, or name of a preset.
        model: String,
        /// Folder to write.
        to: PathBuf,
        /// Key of the random numbers.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Format of the weights.
        #[arg(long, value_enum, default_value = "f32")]
        dtype: Format,
    },
    /// Print a script that completes commands in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}
