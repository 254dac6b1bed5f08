//! The command line: a table from verbs to functions.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jobs::commands::training::Training;

/// Trains mixture-of-experts models the way Kimi K2 was trained, from one file.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Training(Training),
}

fn main() -> ExitCode {
    let Arguments { verb } = Arguments::parse();
    let outcome = match verb {
        Verb::Training(verb) => verb.run(),
    };
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => {
            eprint!("{failure}");
            failure.code.into()
        }
    }
}
