//! How ranks come together: an id that all of them know, and a place for each.

use std::{
    sync::atomic::{AtomicPtr, Ordering},
    time::Duration,
};

use cudarc::nccl::sys::{ncclComm, ncclConfig_t, ncclUniqueId};

use super::{
    super::{Device, DeviceError},
    communicator::{Communicator, settle_all},
    library::{CUDA_ERROR, Functions, IN_PROGRESS, SUCCESS, Status, functions},
};

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
        members.iter().try_for_each(|(_, device)| device.bind())?;
        // NCCL may write there until a rank has left, which no wait of ours is sure to see; so
        // these eight bytes of each rank stay for ever.
        let slots: Vec<AtomicPtr<ncclComm>> =
            members.iter().map(|_| AtomicPtr::default()).collect();
        let slots = &*slots.leak();
        let asked = ask_to_join(functions, members, slots, ranks, id);
        let member = |((rank, device), slot): (&(usize, Device), &AtomicPtr<ncclComm>)| {
            Self::new(slot.load(Ordering::Acquire), device.clone(), (*rank, ranks), limit)
        };
        let all: Vec<Self> = members.iter().zip(slots).map(member).collect();
        let members: Vec<&Self> = all.iter().collect();
        settle_all(&members, "joining a communicator", asked)?;
        Ok(all)
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
        if device.bind().is_err() {
            status = CUDA_ERROR;
        }
        if matches!(status, SUCCESS | IN_PROGRESS) {
            let (rank, ranks) = (*rank as i32, ranks as i32);
            // SAFETY: the slot stays for ever, and the configuration is copied.
            status = unsafe { (functions.join)(slot.as_ptr(), ranks, id, rank, &mut config) };
        }
    }
    // SAFETY: the group was begun, and ends whatever happened in it.
    let ended = unsafe { (functions.group_end)() };
    if matches!(status, SUCCESS | IN_PROGRESS) { ended } else { status }
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
