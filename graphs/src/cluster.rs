//! The machines that a plan is priced for: what they compute, hold and send in a second.
//!
//! Ranks stand on GPUs in the order (replica, stage, expert rank), expert ranks next to each other:
//! rank `(replica * pp + stage) * ep + expert rank` is GPU `rank % gpus` of node `rank / gpus`. So
//! the all-to-all of experts stays inside a node as far as it can, and pipelines cross nodes.

use std::fmt;

/// Where a plan is to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Cluster {
    /// Nodes full of GPUs, one for each rank.
    Gpus(Gpus),
    /// One machine whose cores all ranks share.
    Machine(Machine),
}

/// Nodes of GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpus {
    /// Nodes.
    pub nodes: usize,
    /// GPUs of a node.
    pub gpus: usize,
    /// One GPU.
    pub gpu: Device,
    /// From one GPU to the others of its node.
    pub inside: Link,
    /// From one GPU to those of other nodes: its share of the node's rails.
    pub fabric: Link,
    /// What stands beside the GPUs of a node.
    pub host: Host,
}

/// One machine without GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Cores that compute at a time.
    pub cores: usize,
    /// One core; its memory is that of the machine.
    pub core: Device,
    /// What a message costs: its sender and its receiver compute for this long, in seconds.
    pub message: f64,
    /// Seconds from a send until the receiver's thread runs.
    pub latency: f64,
    /// The link from each rank to the others, if one is emulated.
    pub link: Option<Link>,
    /// Bytes a second between each rank and the host's pool, each way, if a bus is emulated.
    pub host: Option<f64>,
    /// Bytes that each rank may hold, if a device is emulated; or else its share of the memory.
    pub device: Option<u64>,
    /// Whether each rank has a core of its own, emulated: it computes no faster than that.
    pub apart: bool,
}

/// What computes: a GPU, or a core.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What people call it.
    pub name: String,
    /// Bytes it holds.
    pub memory: u64,
    /// Floating-point operations a second in BF16 products, at the peak.
    pub bf16: f64,
    /// Floating-point operations a second in F32, at the peak.
    pub f32: f64,
    /// Bytes a second from and to its memory.
    pub bandwidth: f64,
    /// Seconds to begin one operator.
    pub launch: f64,
    /// Part of the peak that matrix products reach. An assumption, and the one that matters most.
    pub achieved: f64,
}

/// A way between two devices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Bytes a second that one device sends, while it receives as many.
    pub each: f64,
    /// Seconds until the first byte arrives.
    pub latency: f64,
}

/// The host of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// Bytes, for all GPUs of the node together.
    pub memory: u64,
    /// Bytes a second between a GPU and the host, each way.
    pub link: f64,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cluster::Gpus(it) => write!(f, "{} nodes of {} {}", it.nodes, it.gpus, it.gpu.name),
            Cluster::Machine(it) if it.apart => f.write_str("emulated cores"),
            Cluster::Machine(it) => write!(f, "{} shared cores", it.cores),
        }
    }
}

impl Cluster {
    /// Ranks that have a place; nothing if there is no limit.
    pub fn ranks(&self) -> Option<usize> {
        match self {
            Cluster::Gpus(gpus) => Some(gpus.nodes.saturating_mul(gpus.gpus)),
            Cluster::Machine(_) => None,
        }
    }

    /// What a rank computes on.
    pub fn device(&self) -> &Device {
        match self {
            Cluster::Gpus(gpus) => &gpus.gpu,
            Cluster::Machine(machine) => &machine.core,
        }
    }

    /// Bytes that one of `ranks` ranks may hold: those of its GPU, or its share of the machine's.
    pub fn memory(&self, ranks: usize) -> u64 {
        match self {
            Cluster::Gpus(gpus) => gpus.gpu.memory,
            Cluster::Machine(machine) => {
                machine.device.unwrap_or(machine.core.memory / ranks.max(1) as u64)
            }
        }
    }
}

impl Device {
    /// Floating-point operations a second at the peak, in products of such numbers.
    pub fn peak(&self, dtype: ops::DType) -> f64 {
        if dtype == ops::DType::Bf16 { self.bf16 } else { self.f32 }
    }
}

impl Gpus {
    /// Node of a rank.
    pub fn node(&self, rank: usize) -> usize {
        rank / self.gpus
    }
}
