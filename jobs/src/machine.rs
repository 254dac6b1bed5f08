//! The cluster of a job, and this machine as one.

use graphs::{
    ModelGraph, Plan,
    cluster::{Cluster, Device, Machine},
    price::{Prices, Profile},
};

use crate::{
    job::{self, Job},
    memory,
};

/// The cluster that a job names, or this machine.
pub fn cluster(job: &Job) -> Cluster {
    match &job.cluster {
        Some(cluster) => cluster.plain(),
        None => Cluster::Machine(this()),
    }
}

/// This machine: cores and memory as the system tells them, and rates of a common core of 2024.
///
/// `troupe measure` replaces the rates.
pub fn this() -> Machine {
    let core = Device {
        name: "core".into(),
        memory: memory::total().unwrap_or(u64::MAX),
        bf16: 100e9,
        f32: 100e9,
        bandwidth: 8e9,
        launch: 2e-6,
        achieved: 0.5,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (link, host, device) = (None, None, None);
    Machine { cores, core, message: 4e-6, latency: 10e-6, link, host, device, apart: false }
}

/// What ranks have to themselves, in words.
pub fn owned(job: &Job) -> &'static str {
    match cluster(job) {
        Cluster::Gpus(_) => "GPUs of their own",
        Cluster::Machine(_) => "emulated cores of their own",
    }
}

/// What a run of the job emulates, if anything.
pub fn emulated(job: &Job) -> Option<Machine> {
    match (&job.cluster, cluster(job)) {
        (Some(job::Cluster::Local(_)), Cluster::Machine(machine)) => Some(machine),
        _ => None,
    }
}

/// The prices of a job's plan.
pub fn prices(job: &Job, graph: &ModelGraph, plan: &Plan, profile: Option<&Profile>) -> Prices {
    Prices::new(graph, plan, &cluster(job), job.precision.dtype(), profile)
}
