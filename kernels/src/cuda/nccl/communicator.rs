//! One rank's place in a communicator: how it waits, fails and leaves.

use std::{
    cell::RefCell,
    sync::{atomic::AtomicPtr, mpsc},
    thread,
    time::{Duration, Instant},
};

use cudarc::nccl::sys::ncclComm_t;

use super::{
    super::{Device, DeviceError, Event},
    library::{IN_PROGRESS, SUCCESS, Status, functions},
};

/// How often a wait looks without a pause; afterwards it looks every [`PAUSE`]. NCCL has no other
/// way to learn of an error.
const EAGER_LOOKS: u32 = 2_000;
const PAUSE: Duration = Duration::from_micros(100);

/// One rank among others; one thread at a time uses it.
#[derive(Debug)]
pub struct Communicator {
    pub(super) handle: ncclComm_t,
    pub(super) device: Device,
    rank: usize,
    ranks: usize,
    limit: Duration,
    /// The first error; the handle is not used any more once there is one.
    failure: RefCell<Option<DeviceError>>,
    /// Whether the handle has been given back.
    is_finished: bool,
}

// SAFETY: NCCL lets every thread use a communicator, one at a time, which is why it is not `Sync`.
unsafe impl Send for Communicator {}

impl Communicator {
    pub(super) fn new(
        handle: ncclComm_t,
        device: Device,
        (rank, ranks): (usize, usize),
        limit: Duration,
    ) -> Self {
        let failure = RefCell::new(None);
        Communicator { handle, device, rank, ranks, limit, failure, is_finished: false }
    }

    /// The same rank with another limit from now on: joining may take longer than a message.
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its number in the communicator.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Of the communicator.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Whose messages it carries.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits for an event behind messages of this rank, no longer than its limit.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Message`] with what broke a message off, [`DeviceError::Late`] if the event
    /// is not reached in time; this rank has then left the communicator, which may take as long
    /// again, and the stream goes on. Others only notice by a limit of their own.
    pub fn wait(&self, event: &Event) -> Result<(), DeviceError> {
        const ACTION: &str = "waiting for messages";
        self.usable()?;
        let start = Instant::now();
        let is_reached = || {
            // What NCCL breaks off leaves the stream, too, so the error is asked for afterwards.
            let is_reached = event.is_reached()?;
            self.is_settled(ACTION)?;
            if !is_reached {
                self.assert_in_time(ACTION, start)?;
            }
            Ok(is_reached)
        };
        poll(is_reached).map_err(|error| leave(&[self], error))
    }

    /// Leaves the communicator at once: messages under way break off, and later calls say so.
    /// Others only notice by a limit of their own.
    pub fn abort(&self) {
        if self.usable().is_ok() {
            let Communicator { rank, ranks, .. } = *self;
            let (action, cause) = ("a message", "it was asked to".to_string());
            leave(&[self], DeviceError::Message { action, rank, ranks, cause });
        }
    }

    /// The first error, if there was one.
    pub(super) fn usable(&self) -> Result<(), DeviceError> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    /// Whether NCCL has done what it was asked for, or an error if it cannot.
    fn is_settled(&self, action: &'static str) -> Result<bool, DeviceError> {
        let mut state = SUCCESS;
        // SAFETY: the rank has not left, and the pointer is that of a number.
        let asked = unsafe { (functions()?.state)(self.handle, &mut state) };
        match if asked == SUCCESS { state } else { asked } {
            SUCCESS => Ok(true),
            IN_PROGRESS => Ok(false),
            status => Err(self.refused(action, status)),
        }
    }

    fn assert_in_time(&self, action: &'static str, start: Instant) -> Result<(), DeviceError> {
        let Communicator { rank, ranks, limit, .. } = *self;
        let is_late = limit <= start.elapsed();
        if is_late { Err(DeviceError::Late { action, rank, ranks, limit }) } else { Ok(()) }
    }

    fn refused(&self, action: &'static str, status: Status) -> DeviceError {
        let cause = match functions() {
            Ok(functions) => functions.text(status, self.handle),
            Err(error) => error.to_string(),
        };
        DeviceError::Message { action, rank: self.rank, ranks: self.ranks, cause }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if !self.is_finished {
            self.abort();
        }
    }
}

/// Waits until NCCL has done what it answered `asked` to; all leave if it cannot.
pub(super) fn settle_all(
    members: &[&Communicator],
    action: &'static str,
    asked: Status,
) -> Result<(), DeviceError> {
    let start = Instant::now();
    let settle = |member: &&Communicator| match asked {
        SUCCESS | IN_PROGRESS => poll(|| {
            let is_settled = member.is_settled(action)?;
            if !is_settled {
                member.assert_in_time(action, start)?;
            }
            Ok(is_settled)
        }),
        status => Err(member.refused(action, status)),
    };
    members.iter().try_for_each(settle).map_err(|error| leave(members, error))
}

/// Leaves a communicator when all its ranks do, and all messages are through.
///
/// `members` are those of one thread; other threads and processes finish theirs at the same time.
/// A communicator that is dropped without it breaks off what is still under way.
///
/// # Errors
///
/// [`DeviceError::Message`] with what went wrong, [`DeviceError::Late`] if the others do not leave.
pub fn finish(mut members: Vec<Communicator>) -> Result<(), DeviceError> {
    let all: Vec<&Communicator> = members.iter().collect();
    all.iter().try_for_each(|member| member.usable()).map_err(|error| leave(&all, error))?;
    let functions = functions()?;
    let mut status = SUCCESS;
    for member in &members {
        // SAFETY: the rank has not left.
        let asked = unsafe { (functions.finalize)(member.handle) };
        status = if matches!(asked, SUCCESS | IN_PROGRESS) { status } else { asked };
    }
    settle_all(&all, "finishing a communicator", status)?;
    for member in &mut members {
        member.is_finished = true;
        // SAFETY: NCCL has finished with it, and nobody uses the handle again.
        unsafe { (functions.destroy)(member.handle) };
    }
    Ok(())
}

/// Has members leave after an error, and gives it to each and back.
///
/// NCCL breaks off a rank's work at once, but may return only when other ranks of this machine have
/// left, too; so it is called on a thread, which is waited for no longer than the limit.
pub(super) fn leave(members: &[&Communicator], error: DeviceError) -> DeviceError {
    let mut leaving = Vec::new();
    for member in members.iter().filter(|member| member.usable().is_ok()) {
        *member.failure.borrow_mut() = Some(error.clone());
        let handle = AtomicPtr::new(member.handle);
        let (done, is_done) = mpsc::channel();
        if let (Ok(functions), false) = (functions(), member.handle.is_null()) {
            thread::spawn(move || {
                // SAFETY: the member has its failure, so nobody uses the handle again.
                unsafe { (functions.abort)(handle.into_inner()) };
                // Nobody may be waiting any more.
                let _ = done.send(());
            });
            leaving.push((is_done, member.limit));
        }
    }
    for (is_done, limit) in leaving {
        let _ = is_done.recv_timeout(limit);
    }
    error
}

/// Looks until something is so, or an error.
fn poll(mut is_so: impl FnMut() -> Result<bool, DeviceError>) -> Result<(), DeviceError> {
    let mut looks = 0;
    while !is_so()? {
        looks += 1;
        if looks < EAGER_LOOKS { thread::yield_now() } else { thread::sleep(PAUSE) }
    }
    Ok(())
}
