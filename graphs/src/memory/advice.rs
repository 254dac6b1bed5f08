//! Which single change of a plan lowers its memory, tried out one by one.

use std::fmt;

use ops::{DType, optim::Optimizer};
use serde::Serialize;

use crate::{
    error::PlanError,
    lower,
    memory::{Loads, scan},
    mesh::Mesh,
    model::ModelGraph,
    plan::Batch,
    policy::{Activations, Offload, Recompute, Store},
    schedule::Schedule,
    spec::{PlanSpec, WeightGrad, Zero},
};

/// One change of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Change {
    /// Another schedule.
    Schedule(Schedule),
    /// Weight gradients at another time.
    WeightGrad(WeightGrad),
    /// Sequences of a unit.
    Microbatch(usize),
    /// Another mesh.
    Mesh(Mesh),
    /// Other places of masters and optimizer states.
    Zero(Zero),
    /// More nodes run again in the backward pass.
    Recompute(Recompute),
    /// Inputs of experts and of activations are stored in FP8, as K2 has it.
    Store,
    /// What is kept goes to the host.
    Offload,
    /// What is stored in FP8 goes there too.
    OffloadStored,
    /// Masters and optimizer states live on the host.
    OffloadStates,
    /// Another format of activations and of the values that forward and backward read.
    Precision(DType),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Schedule(schedule) => write!(f, "schedule: {}", schedule.name()),
            Change::WeightGrad(when) => write!(f, "weight_grad: {when:?}"),
            Change::Microbatch(sequences) => write!(f, "microbatch: {sequences}"),
            Change::Mesh(Mesh { pp, vpp, ep, dp }) => {
                write!(f, "mesh: (pp: {pp}, vpp: {vpp}, ep: {ep}, dp: {dp})")
            }
            Change::Zero(zero) => write!(f, "zero: {zero:?}"),
            Change::Recompute(what) => write!(f, "recompute: [{what:?}]"),
            Change::Store => f.write_str("store: Fp8(tensors: [MoeUpInput, SwiGluInput])"),
            Change::Offload => f.write_str("offload: Activations()"),
            Change::OffloadStored => f.write_str("offload: Activations(stored: true)"),
            Change::OffloadStates => f.write_str("offload_states: 1"),
            Change::Precision(format) => write!(f, "precision: {format:?}"),
        }
    }
}

/// A change and what it does to the rank that holds most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// What to change.
    pub change: Change,
    /// Ranks that the changed plan needs.
    pub ranks: usize,
    /// Bytes of its largest rank.
    pub bytes: u64,
    /// Bytes that the largest rank of the plan as it is has more.
    pub saves: u64,
}

/// The single changes that lower the memory of the largest rank, cheapest first: those that need
/// no more ranks before those that do, and among equals the one that saves most.
///
/// Each is lowered and scanned. What a change does to the time of a step is not asked here.
/// Measured rows belong to the plan they were measured with, so a plan is taken as balanced
/// unless `worst` is asked for.
///
/// # Errors
///
/// All the [`PlanError`]s of the plan as it is; a change that makes no plan is no advice.
pub fn advice(
    graph: &ModelGraph,
    spec: &PlanSpec,
    batch: Batch,
    precision: DType,
    optimizer: &Optimizer,
    worst: bool,
) -> Result<Vec<Advice>, Vec<PlanError>> {
    let loads = if worst { Loads::Worst } else { Loads::Balanced };
    let bytes = |spec: &PlanSpec, batch: Batch, precision: DType| {
        let plan = lower(graph, spec, batch)?;
        Ok(scan(graph, &plan, precision, optimizer, &loads).largest())
    };
    let now = bytes(spec, batch, precision)?;
    let mut advice = Vec::new();
    for change in changes(spec, precision) {
        let (spec, batch, precision) = changed(spec, batch, precision, change.clone());
        let tried: Result<u64, Vec<PlanError>> = bytes(&spec, batch, precision);
        if let Ok(bytes) = tried
            && bytes < now
        {
            let ranks = spec.mesh.ranks();
            advice.push(Advice { change, ranks, bytes, saves: now - bytes });
        }
    }
    advice.sort_by_key(|it| (it.ranks, std::cmp::Reverse(it.saves)));
    Ok(advice)
}

/// The changes worth trying.
fn changes(spec: &PlanSpec, precision: DType) -> Vec<Change> {
    let mesh = spec.mesh;
    let others = Schedule::ALL.iter().filter(|&schedule| *schedule != spec.schedule());
    let mut changes: Vec<Change> = others.cloned().map(Change::Schedule).collect();
    let times = [WeightGrad::Joined, WeightGrad::Early].into_iter();
    changes.extend(times.filter(|when| *when != spec.weight_grad()).map(Change::WeightGrad));
    if spec.microbatch > 1 {
        changes.push(Change::Microbatch(spec.microbatch / 2));
    }
    if mesh.data_ranks() > 1 {
        let other = if spec.zero == Zero::Owners { Zero::Stage1 } else { Zero::Owners };
        changes.push(Change::Zero(other));
    }
    if precision == DType::F32 {
        changes.push(Change::Precision(DType::Bf16));
    }
    let left = Recompute::ALL.into_iter().filter(|what| !spec.recompute.contains(what));
    changes.extend(left.map(Change::Recompute));
    let policies = spec.policies();
    changes.extend(policies.stores_nothing().then_some(Change::Store));
    changes.push(match policies.offloads() {
        None => Change::Offload,
        Some(_) => Change::OffloadStored,
    });
    changes.extend((spec.offload_states < 1.0).then_some(Change::OffloadStates));
    changes.extend([
        Change::Mesh(Mesh { pp: 2 * mesh.pp, ..mesh }),
        Change::Mesh(Mesh { ep: 2 * mesh.ep, ..mesh }),
        Change::Mesh(Mesh { dp: 2 * mesh.dp, ..mesh }),
    ]);
    changes
}

fn changed(
    spec: &PlanSpec,
    batch: Batch,
    precision: DType,
    change: Change,
) -> (PlanSpec, Batch, DType) {
    let (mut spec, mut batch, mut precision) = (spec.clone(), batch, precision);
    match change {
        Change::Schedule(schedule) => spec.schedule = Some(schedule),
        Change::WeightGrad(when) => spec.weight_grad = Some(when),
        Change::Microbatch(sequences) => spec.microbatch = sequences,
        Change::Zero(zero) => spec.zero = zero,
        Change::Recompute(what) => spec.recompute.push(what),
        Change::Store => spec.store = Some(Store::k2()),
        Change::Offload => spec.offload = Some(Offload::Activations(Activations::default())),
        Change::OffloadStored => {
            let how = spec.policies().offloads().unwrap_or_default();
            spec.offload = Some(Offload::Activations(Activations { stored: true, ..how }));
        }
        Change::OffloadStates => spec.offload_states = 1.0,
        Change::Precision(format) => precision = format,
        Change::Mesh(mesh) => {
            spec.mesh = mesh;
            // More data ranks than lanes would be refused: each gets one.
            if !batch.lanes.is_none_or(|lanes| lanes.is_multiple_of(mesh.data_ranks())) {
                batch.lanes = batch.lanes.map(|lanes| 2 * lanes);
            }
        }
    }
    (spec, batch, precision)
}
