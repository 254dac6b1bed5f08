//! All that follows from a plan on a cluster, before anything runs: bytes, time, traffic.

use ops::{DType, WeightSpec, optim::Optimizer};

use crate::{
    check::Deadlock,
    cluster::Cluster,
    memory::{self, Loads, Memory},
    model::ModelGraph,
    plan::{Instruction, Plan},
    price::{Prices, Profile},
    share::{Exchange, exchanged},
    simulate::{self, Conditions, Outcome},
};

/// What the consequences of a plan depend on, beside the plan.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Where it runs.
    pub cluster: &'a Cluster,
    /// Format of activations and of the values that forward and backward read.
    pub precision: DType,
    /// How parameters are updated.
    pub optimizer: &'a Optimizer,
    /// What was measured, in the place of the cluster's figures.
    pub profile: Option<&'a Profile>,
}

/// What follows from a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Consequences {
    /// Bytes of every actor, for experts that are evenly loaded.
    pub memory: Memory,
    /// Bytes that a rank may hold.
    pub limit: u64,
    /// The simulated step.
    pub outcome: Outcome,
    /// What is sent in a step.
    pub traffic: Traffic,
}

/// Bytes that all ranks together send in a step; what a rank sends itself counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Activations and their gradients from stage to stage.
    pub pipeline: f64,
    /// Rows to the experts and back, forward and backward.
    pub experts: f64,
    /// What the optimizer phase moves between the holders of parameters.
    pub replicas: Exchange,
}

impl Consequences {
    /// Works everything out.
    ///
    /// # Errors
    ///
    /// [`Deadlock`] if the plan hangs, which a plan that [`crate::lower()`] returned does not.
    pub fn of(graph: &ModelGraph, plan: &Plan, terms: &Terms<'_>) -> Result<Self, Deadlock> {
        let Terms { cluster, precision, optimizer, profile } = *terms;
        let prices = Prices::new(graph, plan, cluster, precision, profile);
        Ok(Consequences {
            memory: memory::scan(graph, plan, precision, optimizer, &Loads::Balanced),
            limit: cluster.memory(plan.mesh.ranks()),
            outcome: simulate::outcome(plan, &prices, &Conditions::default())?,
            traffic: traffic(graph, plan, &prices, terms),
        })
    }

    /// The stage whose ranks hold most, and how many bytes.
    pub fn fullest(&self) -> (usize, u64) {
        let stages = (0..self.memory.actors.len()).map(|stage| (stage, self.memory.rank(stage)));
        // The first of equals.
        stages.rev().max_by_key(|&(_, bytes)| bytes).unwrap_or((0, 0))
    }
}

fn traffic(graph: &ModelGraph, plan: &Plan, prices: &Prices, terms: &Terms<'_>) -> Traffic {
    let mut traffic = Traffic::default();
    let peers = plan.mesh.data_ranks() as f64;
    for (_, _, _, instruction) in plan.numbered() {
        if let Instruction::Send { channel, .. } = instruction {
            let sum = match plan.channels[channel].cargo.fans_out() {
                true => &mut traffic.experts,
                false => &mut traffic.pipeline,
            };
            *sum += peers * prices.ways[channel].bytes;
        }
    }
    let by_muon = |spec: &WeightSpec| terms.optimizer.muon(spec.rule, &spec.shape).is_some();
    let of_stages = exchanged(plan, graph, terms.precision, by_muon);
    of_stages.into_iter().flatten().for_each(|it| traffic.replicas.add(it));
    traffic
}
