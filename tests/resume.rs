//! A run that was cut off and resumed is the run that was not.

use std::collections::BTreeMap;

use graphs::{PlanSpec, mesh::Mesh};
use ops::Tensor;
use runtime::{Cluster, Feed, Setup, Snapshot};

use crate::small::{self, Numbers};

fn setup(mesh: Mesh) -> Setup {
    let graph = small::graph(&small::decoder());
    let plan = small::plan(&graph, &PlanSpec { mesh, ..PlanSpec::default() });
    small::setup(graph, plan)
}

/// Trains some steps from a snapshot under a mesh and returns the next snapshot.
fn train(mesh: Mesh, from: Option<Snapshot>, done: u64, steps: u64) -> Snapshot {
    let mut feed = Numbers::new(64);
    let mut setup = setup(mesh);
    if let Some(snapshot) = from {
        feed.seek(&snapshot.feed).unwrap();
        let tokens = done * small::BATCH.tokens() as u64;
        setup = Setup { tensors: snapshot.tensors, step: done, tokens, ..setup };
    }
    let mut cluster = Cluster::start(setup, feed).unwrap();
    (0..steps).for_each(|_| drop(cluster.step().unwrap()));
    cluster.snapshot().unwrap()
}

fn bits(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<&String, Vec<u32>> {
    let bits = |tensor: &Tensor| tensor.f32().iter().map(|x| x.to_bits()).collect();
    tensors.iter().map(|(name, tensor)| (name, bits(tensor))).collect()
}

#[test]
fn a_resumed_run_continues_bit_for_bit_even_under_another_plan() {
    let one = Mesh::default();
    let whole = train(one, None, 0, 5);
    let half = train(one, None, 0, 2);
    let split = Mesh { pp: 2, ep: 2, dp: 2, ..one };
    let resumed = train(split, Some(half), 2, 3);
    assert_eq!(whole.feed, resumed.feed);
    assert_eq!(bits(&whole.tensors), bits(&resumed.tensors));
    let states = whole.tensors.keys().filter(|name| name.starts_with("optimizer.")).count();
    assert!(60 < states, "{states} optimizer states were compared");
}
