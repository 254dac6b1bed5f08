//! Spreads the experts over two ranks, skews the router, and gets the same losses again.
//!
//! Each rank reads half of the sequences and holds half of the experts. A token's row travels to
//! the ranks of its experts and back, so a rank computes as many rows as its experts are popular.
//! The bias of the router then moves the crowd: experts with too many tokens become less likely.
//!
//! `cargo run --example 06_experts_on_two_ranks`

use std::{collections::BTreeMap, env::temp_dir, error::Error};

use jobs::{Job, Request, load, prepare};
use ops::Tensor;
use runtime::{Cluster, StepReport};

const TINY: &str = "examples/tiny.ron";

fn main() -> Result<(), Box<dyn Error>> {
    // The bias moves fifty times as fast as it usually does, so that we see it move.
    let sets = vec!["actors.learner.optimizer=MuonClip(balance_rate: 0.05)".to_string()];
    let job = load(&Request { job: TINY.into(), sets, ..Request::default() })?.job;
    let skewed = skewed(&job)?;
    let one = steps(&job, "one", &skewed)?;
    let two = steps(&job, "experts", &skewed)?;
    println!("step  one rank            two ranks           busiest expert over the mean");
    for (one, two) in one.iter().zip(&two) {
        let StepReport { step, loss, load_max_over_mean: load, .. } = one;
        println!("{step:4}  {loss:<18}  {:<18}  {load:.2}", two.loss);
        assert_eq!(loss.to_bits(), two.loss.to_bits());
        assert_eq!(load, &two.load_max_over_mean);
    }
    println!("the same bits");
    Ok(())
}

fn cluster(
    job: &Job,
    plan: &str,
    tensors: BTreeMap<String, Tensor>,
) -> Result<Cluster, Box<dyn Error>> {
    let network = prepare::Network { tensors, ..prepare::network(job)? };
    let plan = prepare::plan(job, &network.graph, Some(plan), None)?;
    let (feed, _) = prepare::text(job, &network.graph, None, &temp_dir().join("troupe-cache"))?;
    let setup = prepare::setup(&job.phases()[0], network, plan, None)?;
    Ok(Cluster::start(setup, Box::new(feed))?)
}

/// Fresh weights, but with routers that like the first two experts best.
fn skewed(job: &Job) -> Result<BTreeMap<String, Tensor>, Box<dyn Error>> {
    let mut tensors = cluster(job, "one", BTreeMap::new())?.snapshot()?.tensors;
    for (name, tensor) in &mut tensors {
        if name.ends_with("e_score_correction_bias") {
            let bias = [0.2, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
            *tensor = Tensor::from_f32(tensor.shape(), bias.to_vec());
        }
    }
    Ok(tensors)
}

fn steps(
    job: &Job,
    plan: &str,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<StepReport>, Box<dyn Error>> {
    let mut cluster = cluster(job, plan, tensors.clone())?;
    (0..16).map(|_| Ok(cluster.step()?)).collect()
}
