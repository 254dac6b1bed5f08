//! Runs one job under several plans and compares every bit of losses, gradients and parameters.

use graphs::ModelGraph;
use runtime::{
    Cluster, Feed, RunError, Setup,
    report::{Audit, Hash},
};

/// What one plan computed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trace {
    /// Name of the plan.
    pub plan: String,
    /// Hashes of each step.
    pub steps: Vec<Audit>,
}

/// Where a plan first computed something else than the first plan.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The plan that differs from the first one.
    pub plan: String,
    /// Step, counted from 1.
    pub step: usize,
    /// The loss, or the gradient or parameter by name.
    pub what: String,
}

/// Trains `steps` steps under one plan and records the hashes.
///
/// # Errors
///
/// As [`Cluster::step`].
pub fn trace(
    name: &str,
    setup: Setup,
    feed: Box<dyn Feed>,
    steps: usize,
) -> Result<Trace, RunError> {
    let mut cluster = Cluster::start(Setup { audit: true, ..setup }, feed)?;
    let audits = (0..steps).map(|_| cluster.step().map(|report| report.audit));
    Ok(Trace { plan: name.into(), steps: audits.collect::<Result<_, _>>()? })
}

impl Trace {
    /// One hash of everything in the trace.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for audit in &self.steps {
            hasher.update(&audit.loss.to_le_bytes());
            for hash in audit.gradients.iter().chain(&audit.parameters).flatten() {
                hasher.update(hash);
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// The first difference of any trace from the first trace, in step order; `None` if all are equal.
pub fn first_difference(graph: &ModelGraph, traces: &[Trace]) -> Option<Difference> {
    let (reference, others) = traces.split_first()?;
    others.iter().find_map(|other| {
        let steps = reference.steps.iter().zip(&other.steps).enumerate();
        let difference = |(step, (a, b)): (usize, (&Audit, &Audit))| {
            let what = differing(graph, a, b)?;
            Some(Difference { plan: other.plan.clone(), step: step + 1, what })
        };
        { steps }.find_map(difference)
    })
}

/// What differs first within a step, in the order of computation.
fn differing(graph: &ModelGraph, a: &Audit, b: &Audit) -> Option<String> {
    let first = |a: &[Option<Hash>], b: &[Option<Hash>], kind: &str| {
        let place = a.iter().zip(b).position(|(a, b)| a != b)?;
        Some(format!("{kind} of `{}`", graph.parameters()[place].name))
    };
    if a.loss != b.loss {
        return Some("loss".into());
    }
    first(&a.gradients, &b.gradients, "gradient")
        .or_else(|| first(&a.parameters, &b.parameters, "value"))
}
