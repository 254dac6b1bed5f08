//! What the operators, messages and updates of a job take on this machine.
//!
//! Every operator runs in the shapes that the job's plan gives it, on all cores at a time, since
//! that is how a step runs and cores share caches and memory. The least of all repetitions counts,
//! since whatever else the machine does only adds.

use std::{sync::Barrier, thread};

use graphs::{
    ModelGraph, Plan,
    price::{Profile, Sample},
};
use ops::{DType, optim::Optimizer};

mod messages;
mod updates;
mod walk;

use walk::Walk;

/// What is measured, and how often.
pub struct Subject<'a> {
    /// The model.
    pub graph: &'a ModelGraph,
    /// The plan, which says how experts are grouped and how large a microbatch is.
    pub plan: &'a Plan,
    /// The learner's optimizer.
    pub optimizer: &'a Optimizer,
    /// Format of activations.
    pub dtype: DType,
    /// Key of weights and tokens.
    pub seed: u64,
    /// Passes over the model, after one that warms up.
    pub repeats: usize,
}

/// Measures a job on so many cores.
pub fn measure(subject: &Subject<'_>, cores: usize) -> Profile {
    let barrier = Barrier::new(cores);
    let runs: Vec<Vec<Vec<Sample>>> = thread::scope(|scope| {
        let run = || {
            let mut walk = Walk::new(subject);
            walk.pass();
            barrier.wait();
            (0..subject.repeats).map(|_| walk.pass()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|it| it.join().expect("operators do not panic")).collect()
    });
    let passes: Vec<Vec<Sample>> = runs.into_iter().flatten().collect();
    Profile {
        samples: joined(&quickest(&passes)),
        message: messages::sending(),
        latency: messages::latency(),
        byte: messages::copying(),
        update: updates::update(subject.graph, subject.optimizer, subject.dtype),
    }
}

/// The least of some figures; zero of none.
fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().min_by(f64::total_cmp).unwrap_or(0.0)
}

/// One pass whose times are the least of all.
fn quickest(passes: &[Vec<Sample>]) -> Vec<Sample> {
    let nodes = passes.first().map_or(0, Vec::len);
    let least =
        |node: usize, of: fn(&Sample) -> f64| least(passes.iter().map(|pass| of(&pass[node])));
    let sample = |node: usize| Sample {
        forward: least(node, |sample| sample.forward),
        input: least(node, |sample| sample.input),
        weight: least(node, |sample| sample.weight),
        ..passes[0][node].clone()
    };
    (0..nodes).map(sample).collect()
}

/// Means over the nodes with the same operator and amount.
fn joined(samples: &[Sample]) -> Vec<Sample> {
    let mut joined: Vec<(Sample, f64)> = Vec::new();
    for sample in samples {
        let same = |(other, _): &&mut (Sample, f64)| {
            other.op == sample.op && other.amount == sample.amount
        };
        match joined.iter_mut().find(same) {
            Some((sum, count)) => {
                sum.forward += sample.forward;
                sum.input += sample.input;
                sum.weight += sample.weight;
                *count += 1.0;
            }
            None => joined.push((sample.clone(), 1.0)),
        }
    }
    let mean = |(sum, count): (Sample, f64)| Sample {
        forward: sum.forward / count,
        input: sum.input / count,
        weight: sum.weight / count,
        ..sum
    };
    joined.into_iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use graphs::cluster::Cluster;

    use super::*;
    use crate::{Request, load, machine};

    #[test]
    fn every_operator_of_a_plan_is_measured_and_priced_as_measured() {
        let sets = vec!["model.layers=2".into(), "actors.learner.context=32".into()];
        let request = Request { job: "k2-nano".into(), sets, ..Request::default() };
        let loaded = load(&request).unwrap_or_else(|report| panic!("{report}"));
        let (graph, plan) = (&loaded.graph, &loaded.plan);
        let (_, train) = loaded.job.learner();
        let subject = Subject {
            graph,
            plan,
            optimizer: &train.optimizer,
            dtype: DType::F32,
            seed: 1,
            repeats: 3,
        };
        let profile = measure(&subject, 1);
        assert!(profile.message > 0.0 && profile.latency > 0.0 && profile.byte > 0.0);
        assert!(profile.update.muon_flop > 0.0 && profile.update.adamw_element > 0.0);
        for chunk in &plan.chunks {
            let stage = chunk.segments.iter().flatten().map(|&node| graph.node(node).op.clone());
            let experts = chunk.visits.iter().flat_map(|visit| &visit.nodes);
            for op in stage.chain(experts.map(|(_, op)| op.clone())) {
                let sample = profile.samples.iter().find(|sample| sample.op == op);
                assert!(sample.is_some_and(|sample| sample.forward > 0.0), "{op:?}");
            }
        }
        let cluster = Cluster::Machine(machine::this());
        let prices = graphs::price::Prices::new(graph, plan, &cluster, DType::F32, Some(&profile));
        assert!(prices.segments.iter().flatten().all(|parts| parts.sum() > 0.0));
    }
}
