//! The verbs that compute: their arguments, and the function behind each.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use graphs::Decoder;
use ops::DType;

use crate::{
    Loaded, Request,
    commands::{
        bench, eval, export,
        run::{self, Options},
        sample::{self, Taste},
        verify,
    },
    exit::Failure,
    load,
    written::written,
};

/// A job and what is changed in it.
#[derive(Args, Clone, Debug)]
pub struct Chosen {
    /// Path of a job file, or name of a library job.
    pub job: String,
    /// Plan to use: one of the job's plans, or a file.
    #[arg(long)]
    pub plan: Option<String>,
    /// Change a value: `--set plan.mesh.pp=4`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
}

/// Format of exported weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// Single precision.
    F32,
    /// The upper half of an F32.
    Bf16,
}

/// Verbs that train, sample and write models.
#[derive(Debug, Subcommand)]
pub enum Training {
    /// Train a job from its beginning.
    Run {
        /// The job.
        #[command(flatten)]
        chosen: Chosen,
        /// Train on the text files of this folder in place of the job's corpora.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Folder of the run, in place of the job's.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Show no progress.
        #[arg(long)]
        quiet: bool,
        /// Print a summary for machines.
        #[arg(long)]
        json: bool,
    },
    /// Go on with a run from its newest checkpoint.
    Resume {
        /// Folder of the run.
        dir: PathBuf,
        /// The folder of text files that the run was started with, if any.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Show no progress.
        #[arg(long)]
        quiet: bool,
        /// Print a summary for machines.
        #[arg(long)]
        json: bool,
    },
    /// Train a few steps under several plans and compare every bit.
    Verify {
        /// The job.
        #[command(flatten)]
        chosen: Chosen,
        /// Some of the job's plans, separated by commas; all if left out.
        #[arg(long, value_delimiter = ',')]
        plans: Vec<String>,
        /// Steps to train.
        #[arg(long, default_value_t = 3)]
        steps: usize,
        /// Folder of text files in place of the job's corpora.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Print the answer for machines.
        #[arg(long)]
        json: bool,
    },
    /// Measure training speed.
    Bench {
        /// The job.
        #[command(flatten)]
        chosen: Chosen,
        /// Steps to measure.
        #[arg(long, default_value_t = 10)]
        steps: usize,
        /// Print the figures for machines.
        #[arg(long)]
        json: bool,
    },
    /// Let a trained model write.
    Generate {
        /// Folder of a run, a checkpoint or an export.
        dir: PathBuf,
        /// Beginning of the text.
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
        /// Print the answer for machines.
        #[arg(long)]
        json: bool,
    },
    /// Print the negative log-likelihood of every token of a text.
    Eval {
        /// Folder of a run, a checkpoint or an export.
        dir: PathBuf,
        /// A text file.
        #[arg(long, conflicts_with = "tokens", required_unless_present = "tokens")]
        file: Option<PathBuf>,
        /// Token numbers, separated by blanks.
        #[arg(long)]
        tokens: Option<String>,
        /// Print the answer for machines.
        #[arg(long)]
        json: bool,
    },
    /// Write a checkpoint's model as a folder that transformers loads.
    Export {
        /// Folder of a run or a checkpoint.
        from: PathBuf,
        /// Folder to write.
        to: PathBuf,
        /// Format of the weights.
        #[arg(long, value_enum, default_value_t = Format::F32)]
        dtype: Format,
    },
    /// Write an untrained model as a folder that transformers loads.
    InitModel {
        /// Name of a preset, or a file with a `Decoder(..)`.
        model: String,
        /// Folder to write.
        to: PathBuf,
        /// Key of the random numbers.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Format of the weights.
        #[arg(long, value_enum, default_value_t = Format::F32)]
        dtype: Format,
    },
}

impl Format {
    fn dtype(self) -> DType {
        match self {
            Format::F32 => DType::F32,
            Format::Bf16 => DType::Bf16,
        }
    }
}

impl Chosen {
    /// Loads the job, or says all that is wrong with it.
    ///
    /// # Errors
    ///
    /// The report of its mistakes, with exit code 3.
    pub fn load(&self, json: bool) -> Result<Loaded, Failure> {
        let Chosen { job, plan, sets } = self.clone();
        load(&Request { job, plan, sets }).map_err(|report| Failure::report(&report, json))
    }
}

impl Training {
    /// Does what was asked; returns the exit code.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with the exit code of its cause.
    pub fn run(self) -> Result<u8, Failure> {
        match self {
            Training::Run { chosen, data, dir, quiet, json } => {
                let loaded = chosen.load(json)?;
                let options = Options { data, dir, quiet, json };
                run::run(&loaded.job, &written(&loaded.tree), &options)
            }
            Training::Resume { dir, data, quiet, json } => {
                run::resume(&dir, &Options { data, dir: None, quiet, json })
            }
            Training::Verify { chosen, plans, steps, data, json } => {
                let loaded = chosen.load(json)?;
                let options = Options { data, json, ..Options::default() };
                verify::verify(&loaded.job, &plans, steps, &options)
            }
            Training::Bench { chosen, steps, json } => {
                bench::bench(&chosen.load(json)?.job, steps, json)
            }
            Training::Generate { dir, prompt, tokens, temperature, top_p, seed, json } => {
                let taste = Taste { tokens, temperature, top_p, seed };
                sample::generate(&dir, &prompt, &taste, json)
            }
            Training::Eval { dir, file, tokens, json } => {
                let text = match (file, tokens) {
                    (Some(file), _) => eval::Text::File(file),
                    (None, tokens) => eval::Text::Tokens(tokens.unwrap_or_default()),
                };
                eval::eval(&dir, &text, json)
            }
            Training::Export { from, to, dtype } => export::export(&from, &to, dtype.dtype()),
            Training::InitModel { model, to, seed, dtype } => {
                export::init_model(&decoder(&model)?, seed, &to, dtype.dtype())
            }
        }
    }
}

/// A model by preset or file.
fn decoder(model: &str) -> Result<Decoder, Failure> {
    crate::load::decoder(model).map_err(|report| Failure::report(&report, false))
}
