//! Whether a model fits the memory of this machine, asked before it is allocated.

use std::{fmt::Write, ops::Range};

use graphs::{
    ModelGraph, Plan,
    cluster::Cluster,
    memory::{Advice, Alive, Loads, Memory, Scan, advice},
};

use crate::{exit::Failure, job::Job, machine, view::progress::bytes};

/// The memory of this machine is too small.
const OUT_OF_MEMORY: u8 = 13;

/// Changes that are shown.
const ADVICE: usize = 5;

/// Bytes that can be allocated; nothing where the system does not tell.
fn available() -> Option<u64> {
    told("MemAvailable:")
}

/// Bytes of this machine; nothing where the system does not tell.
pub fn total() -> Option<u64> {
    told("MemTotal:")
}

/// A line of what Linux tells about memory, in bytes.
fn told(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Refuses what needs more memory than there is.
///
/// # Errors
///
/// A [`Failure`] with both figures and exit code 13.
pub fn fits(needed: u64, what: &str) -> Result<(), Failure> {
    refuse(needed, available(), what)
}

/// Refuses what needs more than is available, if that is known.
///
/// # Errors
///
/// A [`Failure`] with both figures and exit code 13.
pub fn refuse(needed: u64, available: Option<u64>, what: &str) -> Result<(), Failure> {
    match available {
        Some(available) if available < needed => {
            let (needed, available) = (bytes(needed as usize), bytes(available as usize));
            let text = format!("{what} needs about {needed}, and {available} are available");
            Err(Failure { code: OUT_OF_MEMORY, text })
        }
        _ => Ok(()),
    }
}

/// Bytes of the values of a model in f32.
pub fn of_values(graph: &ModelGraph) -> u64 {
    graph.parameters().iter().map(|parameter| 4 * parameter.elements() as u64).sum()
}

/// Bytes of all tensors that training holds, over all actors of a plan, each at its peak: what
/// the memory scan counts, without what operators allocate for themselves during a call.
pub fn of_training(graph: &ModelGraph, plan: &Plan, job: &Job) -> u64 {
    let (_, train) = job.learner();
    Scan::new(graph, plan, job.precision.dtype(), &train.optimizer).everywhere()
}

/// The same for some of the ranks alone, each at its peak.
pub fn of_ranks(graph: &ModelGraph, plan: &Plan, job: &Job, ranks: Range<usize>) -> u64 {
    let optimizer = &job.learner().1.optimizer;
    let dtype = job.precision.dtype();
    let memory = graphs::memory::scan(graph, plan, dtype, optimizer, &Loads::Balanced);
    ranks.map(|rank| memory.rank(rank / plan.mesh.ep % plan.mesh.pp)).sum()
}

/// Bytes of each rank's device, if ranks have devices of their own.
fn device(cluster: &Cluster) -> Option<u64> {
    match cluster {
        Cluster::Gpus(gpus) => Some(gpus.gpu.memory),
        Cluster::Machine(machine) => machine.device,
    }
}

/// Refuses a plan of whose ranks one holds more than its device does, and says what would help.
///
/// # Errors
///
/// A [`Failure`] with exit code 13: the stage, what it holds most of, and changes that make it fit.
pub fn fits_devices(job: &Job, graph: &ModelGraph, plan: &Plan) -> Result<(), Failure> {
    let Some(limit) = device(&machine::cluster(job)) else { return Ok(()) };
    let (dtype, optimizer) = (job.precision.dtype(), &job.learner().1.optimizer);
    let memory = graphs::memory::scan(graph, plan, dtype, optimizer, &Loads::Balanced);
    let ranks = (0..memory.actors.len()).map(|stage| (stage, memory.rank(stage)));
    let (stage, most) = ranks.max_by_key(|it| it.1).unwrap_or_default();
    if most <= limit {
        return Ok(());
    }
    let size = |count: u64| bytes(count as usize);
    let mut text = format!(
        "the plan does not fit: a rank of stage {stage} holds up to {}, and its device {}",
        size(most),
        size(limit)
    );
    let alive = memory.actors[stage].iter().flat_map(|actor| &actor.alive);
    let largest = alive.max_by_key(|it| it.bytes);
    if let Some(Alive { class, bytes, flights }) = largest {
        let of = if *flights > 0 { format!(" of {flights} microbatches") } else { String::new() };
        let _ = write!(text, "\n  what comes and goes is {class:?} most: {}{of}", size(*bytes));
    }
    for Advice { change, ranks, bytes, .. } in advised(job, graph, plan, &memory) {
        let fits = if bytes <= limit { ", which fits" } else { "" };
        let _ =
            write!(text, "\n  with {change} it would be {} on {ranks} ranks{fits}", size(bytes));
    }
    Err(Failure { code: OUT_OF_MEMORY, text })
}

/// The changes that lower the memory most, without other machines where that is possible.
fn advised(job: &Job, graph: &ModelGraph, plan: &Plan, memory: &Memory) -> Vec<Advice> {
    let (dtype, optimizer) = (job.precision.dtype(), &job.learner().1.optimizer);
    let found = advice(graph, job.plan(), plan.batch, dtype, optimizer, false);
    let mut found = found.unwrap_or_default();
    found.retain(|it| it.bytes < memory.largest());
    found.truncate(ADVICE);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let failure = refuse(3 << 40, Some(16 << 30), "training this").unwrap_err();
        assert_eq!(failure.code, 13);
        assert_eq!(failure.text, "training this needs about 3.0 TiB, and 16.0 GiB are available");
        assert!(refuse(1, Some(2), "a little").is_ok());
        assert!(refuse(u64::MAX, None, "on a system that does not tell").is_ok());
    }
}
