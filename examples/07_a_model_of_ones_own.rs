//! A model that is no decoder, built from nodes, learns to spell on two stages.
//!
//! Any graph of operators will do: nodes say what they read, the plan finds out where to cut.
//! This one has no attention: it guesses a letter from the one before.
//!
//! `cargo run --example 07_a_model_of_ones_own`

use std::{collections::BTreeMap, env::temp_dir, error::Error};

use graphs::{
    ModelGraph,
    source::{GraphSource, Input, Item, NodeSource},
};
use jobs::{Request, load, prepare};
use ops::{Add, CrossEntropy, Embedding, Linear, Op, RmsNorm, SwiGlu};
use runtime::Cluster;

const TINY: &str = "examples/tiny.ron";
const WIDTH: usize = 32;

fn linear(input: usize, output: usize) -> Op {
    Op::Linear(Linear { input, output, init_std: 0.1 })
}

fn norm() -> Op {
    Op::RmsNorm(RmsNorm { width: WIDTH, eps: 1e-6 })
}

fn model(vocab: usize) -> GraphSource {
    let (width, init_std) = (WIDTH, 0.1);
    let head = CrossEntropy { width, vocab, chunk: vocab, init_std };
    let block = vec![
        NodeSource::new("norm", norm(), &["in"]),
        NodeSource::new("gate", linear(width, 64), &["norm"]),
        NodeSource::new("up", linear(width, 64), &["norm"]),
        NodeSource::new("act", Op::SwiGlu(SwiGlu { width: 64 }), &["gate", "up"]),
        NodeSource::new("down", linear(64, width), &["act"]),
        NodeSource::new("add", Op::Add(Add { width }), &["in", "down"]),
    ];
    let letters = Op::Embedding(Embedding { vocab, width, init_std });
    let nodes = vec![
        Item::Node(NodeSource::new("letters", letters, &["tokens"])),
        Item::Repeat("block".into(), 2),
        Item::Node(NodeSource::new("norm", norm(), &[])),
        Item::Node(NodeSource::new("guess", Op::CrossEntropy(head), &["norm", "targets"])),
    ];
    GraphSource { input: Input::default(), blocks: [("block".into(), block)].into(), nodes }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Text, batch and optimizer are those of the other examples.
    let sets = vec!["plan=(mesh: (pp: 2))".to_string()];
    let job = load(&Request { job: TINY.into(), sets, ..Request::default() })?.job;
    let graph = ModelGraph::new(&model(257)).expect("the nodes fit each other");
    let plan = prepare::plan(&job, &graph, None, None)?;
    print!("{}\n{}", graphs::text::model(&graph), graphs::text::place(&graph, &plan));

    let (feed, _) = prepare::text(&job, &graph, None, &temp_dir().join("troupe-cache"))?;
    let network = prepare::Network { graph, decoder: None, tensors: BTreeMap::new() };
    let setup = prepare::setup(&job.phases()[0], network, plan, None)?;
    let mut cluster = Cluster::start(setup, Box::new(feed))?;
    for step in 1..=job.steps() {
        let loss = cluster.step()?.loss;
        if step == 1 || step % 8 == 0 {
            println!("step {step:2}  loss {loss:.3}");
        }
    }
    Ok(())
}
