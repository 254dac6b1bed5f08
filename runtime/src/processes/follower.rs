//! What every process but the first does: it hosts the actors of its ranks.

use super::{Control, Order, Processes, alike};
use crate::{cluster::Setup, crew::Crew, error::RunError};

/// Hosts the actors of this process's ranks of a cluster, until the conductor needs them no longer.
///
/// # Errors
///
/// [`RunError::Weights`] if the tensors to start from do not fit the model, and
/// [`RunError::Lost`] if the conductor does not answer.
///
/// # Panics
///
/// If there are more processes than ranks.
pub fn follow(setup: Setup, processes: &Processes) -> Result<(), RunError> {
    let (patience, alike, line) = (setup.patience, alike(&setup), processes.next_line());
    let crew = Crew::start(setup, Some((processes, line.clone())), None)?;
    processes.host(&line, &crew.brief, &crew.post);
    processes.tell(0, Control::Ready { cluster: line.cluster, alike });
    loop {
        match processes.wait(patience)? {
            (_, Control::End { cluster }) if cluster == line.cluster => break,
            // The conductor has ended before it began this cluster.
            (from, leave @ Control::Leave { .. }) => {
                processes.aside.borrow_mut().push_front((from, leave));
                break;
            }
            _ => {}
        }
    }
    processes.order(Order::Free);
    Ok(())
}
