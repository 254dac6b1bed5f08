//! Whether this program was started alone or several times together, and how such a run ends.

use std::{env, rc::Rc};

use kernels::mpi::MpiError;
use runtime::processes::{Next, Processes};

use crate::{exit::Failure, prepare::PATIENCE};

/// What programs that start others together tell each of them: how many there are, and which it is.
///
/// Slurm's `SLURM_NTASKS` is not among them: a batch script has it, too, which is started once.
const LAUNCHERS: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
];

/// How this program was started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Launch {
    count: usize,
    number: usize,
    told_by: &'static str,
}

impl Launch {
    /// What the environment says; nothing if the program was started alone.
    fn of(told: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| told(name)?.trim().parse().ok();
        LAUNCHERS.into_iter().find_map(|(count, own)| {
            let launch = Launch { count: number(count)?, number: number(own)?, told_by: count };
            (1 < launch.count).then_some(launch)
        })
    }
}

/// Why several processes do not become one run.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong.
    pub failure: Failure,
    /// Whether this process is the one that says so.
    pub speaks: bool,
}

/// The processes that were started together with this one; none if it is alone. `goes_over` says
/// whether what they are to do can be done together.
///
/// # Errors
///
/// A [`Refusal`] if it cannot, or if this program knows no MPI, or another one.
pub fn joined(goes_over: bool) -> Result<Option<Rc<Processes>>, Refusal> {
    let Some(launch) = Launch::of(|name| env::var(name).ok()) else { return Ok(None) };
    let Launch { count, number, told_by } = launch;
    let refused = |failure| Refusal { failure, speaks: number == 0 };
    if !goes_over {
        let text = format!(
            "only `run` and `resume` go over several processes, and {count} were started \
             ({told_by}); start this command alone"
        );
        return Err(refused(Failure::usage(text)));
    }
    let processes = Processes::join().map_err(|error| {
        let hint = match error {
            MpiError::NotBuilt => {
                "; build it with `cargo build --release --features mpi`, or start it alone"
            }
            MpiError::NotInitialised => "",
        };
        let text = format!("{count} processes were started together ({told_by}): {error}{hint}");
        refused(Failure::environment(text))
    })?;
    if processes.count() == 1 {
        let text = format!(
            "{count} processes were started together ({told_by}), and MPI knows of one: this \
             program was built with another MPI than the one that started it"
        );
        let failure = Failure::environment(text);
        processes.leave(failure.code);
        return Err(refused(failure));
    }
    Ok(Some(Rc::new(processes)))
}

/// Ends a follower's part that failed by itself: the conductor hears why, says it, and decides
/// how all end. Returns the exit code; nothing if there is no conductor that could say so.
pub fn failed(processes: &Processes, failure: &Failure) -> Option<u8> {
    if processes.is_broken() {
        return None;
    }
    processes.refuse(failure.code, failure.text.clone());
    loop {
        match processes.next(PATIENCE) {
            Ok(Next::Leave(code)) => return Some(code),
            Ok(Next::Phase(_)) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(told: &[(&str, &str)]) -> Option<Launch> {
        Launch::of(|name| {
            let found = told.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn who_was_started_alone_is_no_part_of_a_launch() {
        assert_eq!(launch(&[]), None);
        let one = [("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")];
        assert_eq!(launch(&one), None);
        assert_eq!(launch(&[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")]), None);
        assert_eq!(launch(&[("PMI_SIZE", "many"), ("PMI_RANK", "0")]), None);
    }

    #[test]
    fn what_starts_several_says_how_many_and_which() {
        let told_by = "SLURM_STEP_NUM_TASKS";
        let slurm = [(told_by, "4"), ("SLURM_PROCID", "3")];
        assert_eq!(launch(&slurm), Some(Launch { count: 4, number: 3, told_by }));
        let inside = [&slurm[..], &[("PMI_SIZE", "2"), ("PMI_RANK", "1")]].concat();
        assert_eq!(launch(&inside), Some(Launch { count: 2, number: 1, told_by: "PMI_SIZE" }));
    }
}
