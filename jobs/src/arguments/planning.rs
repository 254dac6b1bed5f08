//! What the verbs about plans, schedules and pictures take.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::Args;
use jobs::{
    commands::{plan::Level, viz},
    quantity::ByteCount,
};

use crate::arguments::PhaseArguments;

/// A schedule to print, or a file of orders to check or to simulate.
#[derive(Args)]
pub struct ScheduleArguments {
    /// A schedule as jobs write it, such as ZbV or 'Hybrid(group: 6)'; prints its orders.
    #[arg(required_unless_present_any = ["check", "simulate"])]
    pub name: Option<String>,
    /// Stages.
    #[arg(long, default_value_t = 4, conflicts_with_all = ["check", "simulate"])]
    pub pp: usize,
    /// Chunks of each stage; left out, as many as the schedule needs.
    #[arg(long, conflicts_with_all = ["check", "simulate"])]
    pub vpp: Option<usize>,
    /// Microbatches of a step.
    #[arg(long, default_value_t = 8, conflicts_with_all = ["check", "simulate"])]
    pub microbatches: usize,
    /// Forward passes of the warm-up beyond the least, of Interleaved1F1B.
    #[arg(long, value_name = "PASSES", requires = "name")]
    pub extra_warmup: Option<usize>,
    /// Microbatches of one chunk before the next chunk's turn, of Interleaved1F1B or Hybrid.
    #[arg(long, value_name = "MICROBATCHES", requires = "name")]
    pub group: Option<usize>,
    /// Split the weight gradients off, of Interleaved1F1B.
    #[arg(long, requires = "name")]
    pub split_backward: bool,
    /// Pair forward and backward passes, of Interleaved1F1B.
    #[arg(long, requires = "name")]
    pub paired: bool,
    /// Print sends and receives too, where PyTorch's engine has them.
    #[arg(long, requires = "name")]
    pub comms: bool,
    /// Where the orders go, in PyTorch's dialect; `-` prints them.
    #[arg(long, value_name = "-|FILE", default_value = "-")]
    pub csv: PathBuf,
    /// Check a file of orders: lawful, and free of deadlock.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "simulate"])]
    pub check: Option<PathBuf>,
    /// Tokens that a channel holds between send and receive; left out, as many as are needed.
    #[arg(long, requires = "check")]
    pub credits: Option<usize>,
    /// Simulate a file of orders.
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    pub simulate: Option<PathBuf>,
    /// Prices of work on one chunk, and of the way between ranks; pair= is one of F and B.
    #[arg(long, value_name = "PRICES", default_value = "F=1,I=1,W=1,comm=0")]
    pub cost: String,
}

/// A plan to look at.
#[derive(Args)]
pub struct PlanArguments {
    /// The job.
    #[command(flatten)]
    pub job: PhaseArguments,
    /// How far it is lowered.
    #[arg(long, value_enum, default_value = "summary")]
    pub level: Level,
    /// Prices as measured: a file that `measure` wrote.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Try which single changes lower the memory of the fullest rank.
    #[arg(long)]
    pub advice: bool,
    /// Save the plan, to be run as it stands while its inputs stay as they are.
    #[arg(long, short, value_name = "FILE.ron", conflicts_with = "level")]
    pub output: Option<PathBuf>,
}

/// What a search may try.
#[derive(Args)]
pub struct SearchArguments {
    /// The job.
    #[command(flatten)]
    pub job: PhaseArguments,
    /// Ranks to use; left out: all of the cluster, or as many as the job's plan has.
    #[arg(long)]
    pub ranks: Option<NonZeroUsize>,
    /// Bytes that a rank may hold, such as 72GiB; left out: what the job expects, or a device has.
    #[arg(long, value_name = "BYTES")]
    pub limit: Option<ByteCount>,
    /// Sequences of one unit to try, between commas.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub microbatches: Vec<NonZeroUsize>,
    /// Meshes that are tried under every schedule.
    #[arg(long, default_value = "6")]
    pub meshes: NonZeroUsize,
    /// Vary what saves memory or hides messages, too: recompute, offload, ZeRO, overlap; never what
    /// changes numbers.
    #[arg(long)]
    pub policies: bool,
    /// Plans to show.
    #[arg(long, default_value = "5")]
    pub top: NonZeroUsize,
    /// Prices as measured: a file that `measure` wrote.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Folder for the plans that are shown, a file each, for `--plan`.
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Two jobs to compare, or one job under two plans.
#[derive(Args)]
pub struct DiffArguments {
    /// Path of a job file or saved plan, or name of a library job.
    pub before: String,
    /// The job to compare with; left out, the same one, changed by `--plan` and `--set`.
    pub after: Option<String>,
    /// Plan of the second job: one of its own, or a file.
    #[arg(long, value_name = "NAME|FILE")]
    pub plan: Option<String>,
    /// Phase of both whose consequences are compared; left out: the first.
    #[arg(long, value_name = "NAME")]
    pub phase: Option<String>,
    /// Change one field of the second job, as `path=value`; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// End with exit code 5 if they differ.
    #[arg(long)]
    pub exit_code: bool,
}

/// What is drawn, and where it goes.
#[derive(Args)]
pub struct VizArguments {
    /// Path of a job file, name of a library job, or a file of orders (`.csv`).
    #[arg(required_unless_present = "schedule")]
    pub what: Option<String>,
    /// Plan to draw: one of the job's, or a file.
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "schedule")]
    pub plan: Option<String>,
    /// Phase to draw; left out: the first.
    #[arg(long, value_name = "NAME", conflicts_with = "schedule")]
    pub phase: Option<String>,
    /// Change one field of the job, as `path=value`; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE", conflicts_with = "schedule")]
    pub sets: Vec<String>,
    /// Draw a schedule without a job, as jobs name it.
    #[arg(long, value_name = "NAME", conflicts_with = "what")]
    pub schedule: Option<String>,
    /// Compare with another plan, file of orders or schedule, of the same sort; up to three.
    #[arg(long, value_name = "OTHER")]
    pub compare: Vec<String>,
    /// Stages of a schedule.
    #[arg(long, default_value_t = 4, requires = "schedule")]
    pub pp: usize,
    /// Chunks of each stage of a schedule, where it leaves a choice.
    #[arg(long, default_value_t = 2, requires = "schedule")]
    pub vpp: usize,
    /// Microbatches of a schedule.
    #[arg(long, default_value_t = 8, requires = "schedule")]
    pub microbatches: usize,
    /// Prices of work on one chunk, and of the way between ranks.
    ///
    /// For schedules and orders F=1,I=1,W=1,comm=0 if left out; a job is drawn in seconds without.
    #[arg(long, value_name = "PRICES", conflicts_with_all = ["trace", "profile"])]
    pub cost: Option<String>,
    /// Prices of a job as measured: a file that `measure` wrote.
    #[arg(long, value_name = "FILE", conflicts_with = "schedule")]
    pub profile: Option<PathBuf>,
    /// Draw what `run --trace FOLDER` recorded over the job's plan.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["schedule", "compare"])]
    pub trace: Option<PathBuf>,
    /// File to write; its ending says the format: .html, .svg, .perfetto or .txt.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What is written, whatever the file is called.
    #[arg(long, value_enum)]
    pub format: Option<viz::Format>,
    /// Draw in letters, a line for each rank; this is also what is done without a file.
    #[arg(long, conflicts_with = "format")]
    pub text: bool,
    /// Columns of letters; left out, those of the terminal.
    #[arg(long)]
    pub width: Option<usize>,
    /// Say below each line of letters what the rank holds.
    #[arg(long)]
    pub memory: bool,
}
