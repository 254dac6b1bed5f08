//! A run as the processes see it that do not conduct: they have ranks, and write nothing.

use runtime::{
    checkpoint::State,
    processes::{self, Next, Processes},
};

use super::{Options, phases, stop_on_interrupt};
use crate::{
    exit::Failure,
    job::Job,
    prepare::{self, PATIENCE},
};

/// Hosts this process's ranks in all phases that are left, until the conductor ends the run;
/// returns the exit code that all have.
///
/// At a border of phases weights and states come from the checkpoint that the conductor has
/// written there, which is what a run that begins there would have.
pub(super) fn follow(
    job: &Job,
    mut state: Option<State>,
    options: &Options,
    processes: &Processes,
) -> Result<u8, Failure> {
    let lowered = phases::lowered(job, options.force, Some(processes))?;
    let done = state.as_ref().map_or(0, |state| state.step);
    stop_on_interrupt(false);
    for phase in phases::left(lowered, done, job.steps()) {
        let setup = prepare::setup(&phase.phase, phase.network, phase.plan, state.take())?;
        processes::follow(setup, processes)?;
        match processes.next(PATIENCE)? {
            Next::Phase(checkpoint) => state = Some(State::load(&checkpoint)?),
            Next::Leave(code) => return Ok(code),
        }
    }
    Err(Failure::environment("the conductor knows of a phase that this process does not".into()))
}
