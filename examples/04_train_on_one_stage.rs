//! Trains a small model in this process: a job, a plan, a cluster of actors, steps.
//!
//! `cargo run --example 04_train_on_one_stage`

use std::{env::temp_dir, error::Error};

use jobs::{Request, load, prepare};
use runtime::Cluster;

const TINY: &str = "examples/tiny.ron";

fn main() -> Result<(), Box<dyn Error>> {
    // The job, checked: after this line nobody doubts it.
    let loaded = load(&Request { job: TINY.into(), ..Request::default() })?;
    let job = loaded.job;

    // The model as a graph, and how it is spread over stages and ranks: here not at all.
    let network = prepare::network(&job)?;
    let plan = prepare::plan(&job, &network.graph, None, None)?;

    // Text becomes tokens, once; the next run finds them in the cache.
    let (feed, _) = prepare::text(&job, &network.graph, None, &temp_dir().join("troupe-cache"))?;

    // One thread for each actor of the plan, and one for the loader.
    let setup = prepare::setup(&job.phases()[0], network, plan, None)?;
    let mut cluster = Cluster::start(setup, Box::new(feed))?;
    for step in 1..=job.steps() {
        let report = cluster.step()?;
        if step % 8 == 0 {
            println!(
                "step {step:2}  loss {:.4}  largest logit {:.2}  busiest expert {:.2} x the mean",
                report.loss, report.max_logit, report.load_max_over_mean
            );
        }
    }
    Ok(())
}
