//! A model that is no decoder, built from nodes, learns to spell on two stages.
//!
//! Any graph of operators will do: nodes say what they read, the plan finds out where to cut.
//! This one has no attention: it guesses a letter from the one before.
//!
//! `cargo run --example 07_a_model_of_ones_own`

use std::{collections::BTreeMap, env::temp_dir, error::Error, time::Duration};

use graphs::{
    ModelGraph, PlanSpec,
    mesh::Mesh,
    plan::Batch,
    source::{GraphSource, Input, Item, NodeSource},
};
use jobs::data::{Choice, Corpus, Mix, Source};
use ops::{
    Add, CrossEntropy, DType, Embedding, Linear, Op, RmsNorm, SwiGlu,
    optim::{MuonClip, Optimizer},
};
use runtime::{Cluster, Setup, rate::Rate};

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
    let glob = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/src/*.rs").into();
    let text = Corpus { name: "text".into(), source: Source::Text { glob }, weight: 1.0 };
    let (feed, letters) = Mix::open(&[text], &Choice::Bytes, &temp_dir().join("troupe"), Some(1))?;

    let graph = ModelGraph::new(&model(letters.vocab())).expect("the nodes fit each other");
    let spec = PlanSpec { mesh: Mesh { pp: 2, ..Mesh::default() }, ..PlanSpec::default() };
    let batch = Batch { sequences: 8, context: 64, microbatch: 1, lanes: 1 };
    let plan = graphs::lower(&graph, &spec, batch).expect("the model has a place to cut");
    print!("{}\n{}", graph.text(), graphs::text::place(&graph, &plan));

    let optimizer = Optimizer::MuonClip(MuonClip::default());
    let rate = Rate { peak: 0.01, warmup_end: 0.0, decay: None };
    let (clip, dtype, seed, audit, tensors) = (None, DType::F32, 1, false, BTreeMap::new());
    let setup = Setup {
        plan,
        graph,
        optimizer,
        rate,
        clip,
        dtype,
        seed,
        audit,
        tensors,
        step: 0,
        tokens: 0,
        patience: Duration::from_secs(30),
    };
    let mut cluster = Cluster::start(setup, Box::new(feed))?;
    for step in 1..=100 {
        let loss = cluster.step()?.loss;
        if step == 1 || step % 20 == 0 {
            println!("step {step:3}  loss {loss:.3}");
        }
    }
    Ok(())
}
