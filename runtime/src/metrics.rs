//! The actor that writes one JSON object a step.
//!
//! It has a thread of its own, so a slow disk does not stop training; its queue holds one small
//! record a step.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use actix::{Actor, Addr, Arbiter, Context, Handler};

use crate::{error::RunError, report::StepReport};

/// Record of one step.
#[derive(actix::Message, Debug)]
#[rtype(result = "()")]
struct Record(StepReport);

/// Writes records to a file; a failed write is told once and loses no training.
struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    failed: bool,
}

impl Actor for Writer {
    type Context = Context<Self>;
}

impl Handler<Record> for Writer {
    type Result = ();

    fn handle(&mut self, Record(report): Record, _: &mut Context<Self>) {
        let line = serde_json::to_string(&report).expect("a report is plain numbers");
        let written = writeln!(self.file, "{line}").and_then(|()| self.file.flush());
        if let (Err(error), false) = (written, self.failed) {
            eprintln!("warning: metrics are lost from here on: {}: {error}", self.path.display());
            self.failed = true;
        }
    }
}

/// Ends the writer's thread once everything before it is written.
#[derive(actix::Message, Debug)]
#[rtype(result = "()")]
struct Close;

impl Handler<Close> for Writer {
    type Result = ();

    fn handle(&mut self, _: Close, _: &mut Context<Self>) {
        Arbiter::current().stop();
    }
}

/// A metrics file being written.
pub struct Metrics {
    address: Addr<Writer>,
    arbiter: Option<Arbiter>,
}

impl Metrics {
    /// Continues a file after step `step`; lines of later steps are of a run that was cut off.
    ///
    /// Must be called while a cluster is running, whose actix system the writer joins.
    ///
    /// # Errors
    ///
    /// [`RunError::Write`] if the file cannot be made.
    pub fn open(path: &Path, step: u64) -> Result<Self, RunError> {
        let error = |source| RunError::Write { path: path.display().to_string(), source };
        let kept = kept_lines(path, step).map_err(error)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(error)?;
        }
        let mut file = BufWriter::new(File::create(path).map_err(error)?);
        kept.iter().try_for_each(|line| writeln!(file, "{line}")).map_err(error)?;
        let writer = Writer { path: path.into(), file, failed: false };
        let arbiter = Arbiter::new();
        let address = Writer::start_in_arbiter(&arbiter.handle(), |_| writer);
        Ok(Metrics { address, arbiter: Some(arbiter) })
    }

    /// Queues the record of a step.
    pub fn write(&self, report: &StepReport) {
        self.address.do_send(Record(report.clone()));
    }
}

impl Drop for Metrics {
    /// Waits until the last record is on disk.
    fn drop(&mut self) {
        self.address.do_send(Close);
        if let Some(arbiter) = self.arbiter.take() {
            // A panic of the writer has lost metrics, not the run.
            let _ = arbiter.join();
        }
    }
}

fn kept_lines(path: &Path, step: u64) -> std::io::Result<Vec<String>> {
    if step == 0 || !path.exists() {
        return Ok(Vec::new());
    }
    let of = |line: &String| {
        let record: Option<serde_json::Value> = serde_json::from_str(line).ok();
        record.and_then(|record| record["step"].as_u64())
    };
    let lines: Vec<String> = BufReader::new(File::open(path)?).lines().collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| of(line).is_some_and(|n| n <= step)).collect())
}
