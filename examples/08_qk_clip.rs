//! Draws the largest attention logit of each step, with QK-Clip and without it.
//!
//! The model learns the same random tokens by heart, step after step, at a high rate and without
//! weight decay: its attention grows sharper and sharper. The clip acts after a step has seen its
//! logits, and the next update moves the weights again, so the logits stay near tau and not below.
//!
//! `cargo run --release --example 08_qk_clip docs/qk-clip.svg`

use std::error::Error;

use jobs::{
    Request, load, prepare,
    view::plot::{Curve, Plot},
};
use runtime::{Cluster, Feed, FeedError};

const TINY: &str = "examples/tiny.ron";

/// The same sixteen sequences of random tokens at every step.
struct ByHeart;

impl Feed for ByHeart {
    fn next(&mut self, rows: usize, context: usize) -> Result<(Vec<i32>, Vec<i32>), FeedError> {
        let token = |at: usize| (kernels::random::bits(1, at as u64) % 64) as i32;
        let row = |row: usize| (0..context).map(move |i| row * (context + 1) + i);
        let places: Vec<usize> = (0..rows).flat_map(row).collect();
        let targets = places.iter().map(|at| token(at + 1)).collect();
        Ok((places.into_iter().map(token).collect(), targets))
    }

    fn position(&self) -> serde_json::Value {
        0.into()
    }

    fn seek(&mut self, _: &serde_json::Value) -> Result<(), FeedError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let clipped = logits("8")?;
    let free = logits("None")?;
    let curves = [
        Curve { name: "without", points: &free },
        Curve { name: "with QK-Clip", points: &clipped },
    ];
    let levels = [("tau = 8", 8.0)];
    let plot =
        Plot { title: "largest attention logit of each step", curves: &curves, levels: &levels };
    match std::env::args().nth(1) {
        Some(path) => std::fs::write(path, plot.svg())?,
        None => println!("{}", plot.terminal(72, 16)),
    }
    Ok(())
}

/// Largest logit by step for a value of `qk_clip`.
fn logits(tau: &str) -> Result<Vec<(u64, f64)>, Box<dyn Error>> {
    let optimizer = format!("MuonClip(qk_clip: {tau}, weight_decay: 0)");
    let learner =
        [("context", "12"), ("batch", "192"), ("lr", "Wsd(peak: 0.03)"), ("optimizer", &optimizer)];
    let sets = learner.map(|(field, value)| format!("actors.learner.{field}={value}")).to_vec();
    let job = load(&Request { job: TINY.into(), sets, ..Request::default() })?.job;
    let network = prepare::network(&job)?;
    let plan = prepare::plan(&job, &network.graph, None, None)?;
    let setup = prepare::setup(&job.phases()[0], network, plan, None)?;
    let mut cluster = Cluster::start(setup, Box::new(ByHeart))?;
    let (mut points, mut clipped) = (Vec::new(), 0);
    for step in 1..=240 {
        let report = cluster.step()?;
        points.push((step, f64::from(report.max_logit)));
        clipped += report.clipped_heads;
    }
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    println!("qk_clip {tau}: logits up to {most:.1}, {clipped} times a head was clipped");
    Ok(points)
}
