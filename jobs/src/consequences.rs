//! What follows from a job's plan on its cluster, and whether the job expected it.

use graphs::{Consequences, Plan, consequences::Terms, price::Profile};

use crate::{
    exit::Failure,
    job::Job,
    load::Loaded,
    machine,
    view::{progress::bytes, words::time},
};

/// Works out what follows from a loaded job.
///
/// # Errors
///
/// A plan that hangs, of which loading has proved that there is none.
pub fn consequences(loaded: &Loaded, profile: Option<&Profile>) -> Result<Consequences, Failure> {
    of_plan(&loaded.job, &loaded.graph, &loaded.plan, profile)
}

/// The same for any plan of the job's model.
///
/// # Errors
///
/// As [`consequences`].
pub fn of_plan(
    job: &Job,
    graph: &graphs::ModelGraph,
    plan: &Plan,
    profile: Option<&Profile>,
) -> Result<Consequences, Failure> {
    let cluster = machine::cluster(job);
    let (_, train) = job.learner();
    let precision = job.precision.dtype();
    let terms = Terms { cluster: &cluster, precision, optimizer: &train.optimizer, profile };
    Consequences::of(graph, plan, &terms)
        .map_err(|hang| Failure { code: 3, text: hang.to_string() })
}

/// One of the job's expectations, and what the plan does to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expectation {
    /// Field of `expect`.
    pub field: &'static str,
    /// The bound.
    pub bound: String,
    /// What the plan comes to.
    pub found: String,
    /// Whether the plan keeps it.
    pub is_kept: bool,
}

/// All expectations of a job.
pub fn expectations(job: &Job, found: &Consequences) -> Vec<Expectation> {
    let expect = job.expect;
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let size = |count: u64| bytes(count as usize);
    let (_, most) = found.fullest();
    let outcome = &found.outcome;
    let entry =
        |field, bound: String, found: String, is_kept| Expectation { field, bound, found, is_kept };
    let all = [
        expect.max_memory.map(|it| entry("max_memory", size(it.0), size(most), most <= it.0)),
        expect
            .max_bubble
            .map(|it| entry("max_bubble", percent(it), percent(outcome.idle), outcome.idle <= it)),
        expect
            .min_mfu
            .map(|it| entry("min_mfu", percent(it), percent(outcome.mfu), outcome.mfu >= it)),
        expect.max_step.map(|it| {
            entry("max_step", time(it.0), time(outcome.makespan), outcome.makespan <= it.0)
        }),
    ];
    all.into_iter().flatten().collect()
}
