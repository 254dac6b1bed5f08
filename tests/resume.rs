//! A run that was cut off and resumed is the run that was not.

use std::collections::BTreeMap;

use graphs::{PlanSpec, mesh::Mesh, spec::Zero};
use ops::Tensor;
use runtime::{Cluster, Feed, Setup, Snapshot, checkpoint::State};

use crate::small::{self, Numbers};

fn setup(spec: &PlanSpec) -> Setup {
    let graph = small::graph(&small::decoder());
    let plan = small::plan(&graph, spec);
    small::setup(graph, plan)
}

fn on(mesh: Mesh, zero: Zero) -> PlanSpec {
    PlanSpec { mesh, zero, ..PlanSpec::default() }
}

/// Trains some steps from a snapshot under a plan and returns the next snapshot.
fn train(spec: &PlanSpec, from: Option<Snapshot>, done: u64, steps: u64) -> Snapshot {
    let mut feed = Numbers::new(64);
    let mut setup = setup(spec);
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
    let one = on(Mesh::default(), Zero::Owners);
    let whole = train(&one, None, 0, 5);
    let half = train(&one, None, 0, 2);
    let split = on(Mesh { pp: 2, ep: 2, dp: 2, ..one.mesh }, Zero::Owners);
    let resumed = train(&split, Some(half), 2, 3);
    assert_eq!(whole.feed, resumed.feed);
    assert_eq!(bits(&whole.tensors), bits(&resumed.tensors));
    let states = whole.tensors.keys().filter(|name| name.starts_with("optimizer.")).count();
    assert!(60 < states, "{states} optimizer states were compared");
}

#[test]
fn checkpoints_know_no_slices_so_a_run_goes_on_under_either_form_of_zero() {
    let mesh = |dp, ep| Mesh { dp, ep, ..Mesh::default() };
    let whole = train(&on(mesh(1, 1), Zero::Owners), None, 0, 6);
    let folder = tempfile::tempdir().unwrap();
    let through_disk = |step: u64, snapshot: Snapshot| {
        let Snapshot { tensors, feed } = snapshot;
        let tokens = step * small::BATCH.tokens() as u64;
        let job = "Job()".into();
        let state = State { step, tokens, phase: None, feed, job, tensors };
        let State { tensors, feed, .. } = State::load(&state.save(folder.path()).unwrap()).unwrap();
        Snapshot { tensors, feed }
    };
    let owners = train(&on(mesh(2, 2), Zero::Owners), None, 0, 2);
    let slices = train(&on(mesh(4, 1), Zero::Stage1), Some(through_disk(2, owners)), 2, 2);
    let owners = train(&on(mesh(1, 2), Zero::Owners), Some(through_disk(4, slices)), 4, 2);
    assert_eq!(whole.feed, owners.feed);
    assert_eq!(bits(&whole.tensors), bits(&owners.tensors));
}
