//! `measure`: a profile of a job on this machine.

use std::path::Path;

use graphs::cluster::Cluster;
use serde_json::json;

use crate::{
    exit::Failure,
    job::Job,
    machine,
    measure::{Subject, measure},
    memory, prepare, profile,
    report::SCHEMA,
};

/// Measures the operators, messages and updates of a job and writes the profile.
///
/// # Errors
///
/// A plan or model that does not fit this machine, a file that cannot be written.
pub fn run(job: &Job, to: &Path, repeats: usize, as_json: bool) -> Result<String, Failure> {
    let network = prepare::network(job)?;
    let plan = prepare::plan(job, &network.graph, None, None)?;
    let cores = match machine::cluster(job) {
        Cluster::Machine(machine) => machine.cores,
        Cluster::Gpus(_) => {
            let text = "the job's cluster has GPUs; `measure` measures this machine's cores";
            return Err(Failure::usage(text.into()));
        }
    };
    // Each core has weights of its own, and gradients while it runs backward.
    let needed = 2 * cores as u64 * memory::of_values(&network.graph);
    memory::fits(needed, "measuring this model")?;
    let (_, train) = job.learner();
    let subject = Subject {
        graph: &network.graph,
        plan: &plan,
        optimizer: &train.optimizer,
        dtype: job.precision.dtype(),
        seed: job.seed,
        repeats,
    };
    let measured = measure(&subject, cores);
    let failed = |error| Failure::environment(format!("{}: {error}", to.display()));
    std::fs::write(to, profile::text(&measured)).map_err(failed)?;
    let (count, path) = (measured.samples.len(), to.display());
    Ok(if as_json {
        let answer = json!({
            "schema": SCHEMA, "job": job.name, "operators": count, "cores": cores,
            "profile": path.to_string(),
        });
        format!("{answer}\n")
    } else {
        format!("{count} operators measured on {cores} cores: {path}\n")
    })
}
