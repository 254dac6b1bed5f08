//! Cuts the same model into four stages and gets the same losses, to the last bit.
//!
//! The stages are actors that send each other activations and gradients, one microbatch after the
//! other. When and where something is computed never changes what is computed.
//!
//! `cargo run --example 05_train_on_four_stages`

use std::{env::temp_dir, error::Error};

use jobs::{Job, Request, load, prepare};
use runtime::Cluster;

const TINY: &str = "examples/tiny.ron";

fn main() -> Result<(), Box<dyn Error>> {
    let job = load(&Request { job: TINY.into(), ..Request::default() })?.job;
    let one = losses(&job, "one")?;
    let four = losses(&job, "four")?;
    println!("step  one stage            four stages");
    for (step, (one, four)) in (1..).zip(one.iter().zip(&four)) {
        println!("{step:4}  {one:<18}  {four:<18}");
    }
    assert_eq!(one, four);
    println!("the same bits");
    Ok(())
}

/// Loss of each of ten steps under a plan of the job.
fn losses(job: &Job, plan: &str) -> Result<Vec<f64>, Box<dyn Error>> {
    let network = prepare::network(job)?;
    let plan = prepare::plan(job, &network.graph, Some(plan), None)?;
    println!("{}", graphs::text::orders(&plan.orders));
    let (feed, _) = prepare::text(job, &network.graph, None, &temp_dir().join("troupe-cache"))?;
    let setup = prepare::setup(&job.phases()[0], network, plan, None)?;
    let mut cluster = Cluster::start(setup, Box::new(feed))?;
    (0..10).map(|_| Ok(cluster.step()?.loss)).collect()
}
