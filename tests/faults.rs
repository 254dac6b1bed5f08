//! A fault ends the step everywhere, with a name and a cause, and never hangs.

use std::{sync::atomic::AtomicBool, time::Duration};

use graphs::{
    PlanSpec,
    mesh::Mesh,
    plan::{Instruction, Side},
};
use jobs::train::{Checkpoints, Every, Orders, Stop, train};
use ops::Tensor;
use runtime::{Cluster, RunError, Setup, checkpoint};

use crate::small::{self, Numbers};

fn split() -> PlanSpec {
    PlanSpec { mesh: Mesh { pp: 2, ep: 2, ..Mesh::default() }, ..PlanSpec::default() }
}

fn split_setup() -> Setup {
    let graph = small::graph(&small::decoder());
    let plan = small::plan(&graph, &split());
    small::setup(graph, plan)
}

#[test]
fn a_failing_actor_is_named_with_its_action_and_cause() {
    let mut cluster = Cluster::start(split_setup(), Numbers::new(1000)).unwrap();
    let error = cluster.step().map(|report| report.loss).unwrap_err();
    let RunError::Actor { actor, action, cause } = &error else { panic!("{error}") };
    assert!(actor.starts_with("stage "), "{actor}");
    assert!(action.contains('F'), "{action}");
    assert!(cause.contains("token"), "{cause}");
}

#[test]
fn a_lost_message_becomes_a_story_of_who_waits_for_whom() {
    let mut setup = split_setup();
    let program = &mut setup.plan.programs[0][Side::Stage as usize].instructions;
    let lost = program.iter().rposition(|i| matches!(i, Instruction::Send { .. })).unwrap();
    program.remove(lost);
    let setup = Setup { patience: Duration::from_millis(700), ..setup };
    let mut cluster = Cluster::start(setup, Numbers::new(64)).unwrap();
    let error = cluster.step().map(|report| report.loss).unwrap_err();
    let RunError::Stuck { story, .. } = &error else { panic!("{error}") };
    assert!(story.contains("waits for receive"), "{story}");
    assert!(story.contains("from stage 0, expert rank 1"), "{story}");
}

#[test]
fn a_number_that_is_not_finite_ends_the_run_and_names_the_tensor() {
    let graph = small::graph(&small::decoder());
    let mut cluster = Cluster::start(split_setup(), Numbers::new(64)).unwrap();
    let mut tensors = cluster.snapshot().unwrap().tensors;
    drop(cluster);
    let name = &graph.parameters()[5].name;
    let shape = tensors[name].shape().to_vec();
    let size = shape.iter().product();
    tensors.insert(name.clone(), Tensor::from_f32(&shape, vec![f32::NAN; size]));
    let setup = Setup { tensors, ..split_setup() };
    let mut cluster = Cluster::start(setup, Numbers::new(64)).unwrap();
    let error = cluster.step().map(|report| report.loss).unwrap_err();
    assert!(matches!(error, RunError::NotFinite { step: 1, .. }), "{error}");
}

#[test]
fn weights_of_another_model_are_refused_by_name() {
    let setup = split_setup();
    let name = setup.graph.parameters()[0].name.clone();
    let tensors = [(name.clone(), Tensor::from_f32(&[1], vec![0.0]))].into();
    let error = Cluster::start(Setup { tensors, ..setup }, Numbers::new(64)).err().unwrap();
    assert!(error.to_string().contains(&format!("`{name}` has shape [1]")), "{error}");
}

#[test]
fn a_failure_loses_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let orders = Orders {
        stop: Stop::Steps(3),
        phase: None,
        checkpoints: Some(Checkpoints {
            dir: folder.path().into(),
            every: Some(Every::Steps(1)),
            keep: 2,
        }),
        metrics: vec![],
        job: "Job()".into(),
        quiet: true,
        trace: None,
    };
    let go = AtomicBool::new(false);
    let mut cluster = Cluster::start(split_setup(), Numbers::new(64)).unwrap();
    train(&mut cluster, &orders, &go).unwrap();
    drop(cluster);
    let latest = checkpoint::latest(folder.path()).unwrap().unwrap();
    let state = checkpoint::State::load(&latest).unwrap();
    assert_eq!(state.step, 3);
    let setup = Setup { tensors: state.tensors, step: 3, ..split_setup() };
    let mut cluster = Cluster::start(setup, Numbers::new(1000)).unwrap();
    let orders = Orders { stop: Stop::Steps(5), ..orders };
    assert!(train(&mut cluster, &orders, &go).is_err());
    assert_eq!(checkpoint::latest(folder.path()).unwrap().unwrap(), latest);
}
