//! One rank's place in a communicator: how it joins, waits, fails and leaves.

use std::{
    cell::RefCell,
    sync::{
        atomic::{AtomicPtr, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use cudarc::nccl::sys::{ncclComm, ncclComm_t, ncclConfig_t, ncclUniqueId};

use super::{
    super::{Device, DeviceError, Event},
    library::{Functions, IN_PROGRESS, SUCCESS, Status, functions},
};

/// How often a wait looks without a pause; afterwards it looks every [`PAUSE`].
const EAGER_LOOKS: u32 = 2_000;
const PAUSE: Duration = Duration::from_micros(100);

/// What the ranks of a communicator know each other by; one of them makes it and tells the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UniqueId {
    bytes: [u8; 128],
}

impl UniqueId {
    /// One that no other communicator has.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoLibrary`] without NCCL, [`DeviceError::Driver`] if it finds no network
    /// interface.
    pub fn new() -> Result<Self, DeviceError> {
        let functions = functions()?;
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: the pointer is that of an id.
        let status = unsafe { (functions.unique_id)(&mut id) };
        if status != SUCCESS {
            let cause = functions.text(status, std::ptr::null_mut());
            return Err(DeviceError::Driver { action: "making an id for NCCL", cause });
        }
        Ok(UniqueId { bytes: id.internal.map(|byte| byte as u8) })
    }

    /// As another rank told it.
    pub fn from_bytes(bytes: [u8; 128]) -> Self {
        UniqueId { bytes }
    }

    /// To tell other ranks.
    pub fn bytes(&self) -> [u8; 128] {
        self.bytes
    }
}

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
    /// A communicator of these devices, whose ranks are numbered in their order, in this process.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoLibrary`] without NCCL, [`DeviceError::Message`] with what it says.
    pub fn of_devices(devices: &[Device], limit: Duration) -> Result<Vec<Self>, DeviceError> {
        let members: Vec<_> = devices.iter().cloned().enumerate().collect();
        Self::join_all(&members, devices.len(), &UniqueId::new()?, limit)
    }

    /// One rank, when all others have joined, each in a thread or a process of its own.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoLibrary`] without NCCL, [`DeviceError::Message`] with what it says,
    /// [`DeviceError::Late`] if the others have not joined within `limit`.
    ///
    /// # Panics
    ///
    /// If there is no such rank.
    pub fn join(
        device: &Device,
        id: &UniqueId,
        rank: usize,
        ranks: usize,
        limit: Duration,
    ) -> Result<Self, DeviceError> {
        let joined = Self::join_all(&[(rank, device.clone())], ranks, id, limit)?;
        Ok(joined.into_iter().next().expect("one has joined"))
    }

    /// The ranks of one thread, each with its device, when all others have joined. No two ranks of
    /// a communicator may have the same device.
    ///
    /// # Errors
    ///
    /// As [`Communicator::join`].
    ///
    /// # Panics
    ///
    /// If there is no such rank.
    pub fn join_all(
        members: &[(usize, Device)],
        ranks: usize,
        id: &UniqueId,
        limit: Duration,
    ) -> Result<Vec<Self>, DeviceError> {
        assert!(members.iter().all(|(rank, _)| *rank < ranks), "a rank of {ranks}");
        let functions = functions()?;
        // NCCL may write there until a rank has left, which no wait of ours is sure to see; so
        // these eight bytes of each rank stay for ever.
        let slots: Vec<AtomicPtr<ncclComm>> =
            members.iter().map(|_| AtomicPtr::default()).collect();
        let slots = &*slots.leak();
        let asked = ask_to_join(functions, members, slots, ranks, id);
        let member = |((rank, device), slot): (&(usize, Device), &AtomicPtr<ncclComm>)| Self {
            handle: slot.load(Ordering::Acquire),
            device: device.clone(),
            rank: *rank,
            ranks,
            limit,
            failure: RefCell::new(None),
            is_finished: false,
        };
        let all: Vec<Self> = members.iter().zip(slots).map(member).collect();
        let members: Vec<&Self> = all.iter().collect();
        settle_all(&members, "joining a communicator", asked)?;
        Ok(all)
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
    /// [`DeviceError::Message`] with what broke a message off, [`DeviceError::Late`] if the event is
    /// not reached in time; this rank has then left the communicator, and the stream goes on.
    /// Others only notice by a limit of their own.
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

/// Asks NCCL to let ranks join, and leaves what they are called by in `slots`.
fn ask_to_join(
    functions: &Functions,
    members: &[(usize, Device)],
    slots: &'static [AtomicPtr<ncclComm>],
    ranks: usize,
    id: &UniqueId,
) -> Status {
    let mut config = without_blocking();
    let id = ncclUniqueId { internal: id.bytes.map(|byte| byte as _) };
    // SAFETY: nothing is handed over.
    let mut status = unsafe { (functions.group_start)() };
    for ((rank, device), slot) in members.iter().zip(slots) {
        // NCCL takes the device whose context is the thread's.
        if status == SUCCESS && device.bind().is_ok() {
            let (rank, ranks) = (*rank as i32, ranks as i32);
            // SAFETY: the slot stays for ever, and the configuration is copied.
            status = unsafe { (functions.join)(slot.as_ptr(), ranks, id, rank, &mut config) };
        }
        if status == IN_PROGRESS {
            status = SUCCESS;
        }
    }
    // SAFETY: the group was begun, and ends whatever happened in it.
    let ended = unsafe { (functions.group_end)() };
    if status == SUCCESS { ended } else { status }
}

/// NCCL's usual configuration, but for calls that return at once.
fn without_blocking() -> ncclConfig_t {
    const MAGIC: u32 = 0xcafe_beef;
    const UNSET: i32 = i32::MIN;
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: MAGIC,
        version: 23_000,
        blocking: 0,
        cgaClusterSize: UNSET,
        minCTAs: UNSET,
        maxCTAs: UNSET,
        netName: std::ptr::null(),
        splitShare: UNSET,
        trafficClass: UNSET,
        commName: std::ptr::null(),
        collnetEnable: UNSET,
        CTAPolicy: UNSET,
        shrinkShare: UNSET,
        nvlsCTAs: UNSET,
        nChannelsPerNetPeer: UNSET,
        nvlinkCentricSched: UNSET,
        graphUsageMode: UNSET,
        numRmaCtx: UNSET,
        maxP2pPeers: UNSET,
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
    members.iter().try_for_each(Communicator::usable)?;
    let functions = functions()?;
    let mut status = SUCCESS;
    for member in &members {
        // SAFETY: the rank has not left.
        let asked = unsafe { (functions.finalize)(member.handle) };
        status = if matches!(asked, SUCCESS | IN_PROGRESS) { status } else { asked };
    }
    settle_all(&members.iter().collect::<Vec<_>>(), "finishing a communicator", status)?;
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
