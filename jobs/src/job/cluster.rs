//! The machines of a job, as a cluster file names them; quantities have units.

use graphs::cluster::{self, Device, Gpus, Host, Link};
use serde::Deserialize;

use crate::{
    machine,
    quantity::{Bandwidth, ByteCount, Flops, Seconds},
};

/// Where a plan is to run; `Preset(..)` and `File(..)` have become one of these on loading.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Cluster {
    /// Nodes of GPUs, one for each rank.
    Cluster(Nodes),
    /// One machine without GPUs, whose cores all ranks share.
    Machine(Machine),
    /// This machine, whose ranks are given links, buses and memories of their own.
    Local(Local),
}

/// Nodes of GPUs.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// How many.
    pub nodes: usize,
    /// One of them.
    pub node: Node,
    /// What joins them.
    pub fabric: Fabric,
}

/// A node.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// GPUs in it.
    pub gpus: usize,
    /// One of them.
    pub gpu: Gpu,
    /// What joins them.
    pub inside: Inside,
    /// What stands beside them.
    pub host: HostFields,
}

/// A GPU.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// What people call it.
    pub name: String,
    /// What it holds.
    pub memory: ByteCount,
    /// Peak of BF16 products.
    pub bf16: Flops,
    /// Peak of F32.
    pub f32: Flops,
    /// To and from its memory.
    pub hbm: Bandwidth,
    /// Time to begin a kernel.
    pub launch: Seconds,
    /// Part of the peak that matrix products reach: an assumption.
    pub achieved: f64,
}

/// The links of a node.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Inside {
    /// NVLink through a switch.
    NvLink {
        /// What each GPU sends, while it receives as much.
        each: Bandwidth,
        /// Until the first byte arrives.
        latency: Seconds,
    },
}

/// The links between nodes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Fabric {
    /// Network cards that the GPUs of a node share evenly.
    Rails {
        /// Cards of a node.
        count: usize,
        /// What each card sends, while it receives as much.
        each: Bandwidth,
        /// Until the first byte arrives.
        latency: Seconds,
    },
}

/// The host of a node.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename = "Host")]
pub struct HostFields {
    /// What it holds.
    pub memory: ByteCount,
    /// Between a GPU and the host, each way.
    pub link: Bandwidth,
}

/// One machine without GPUs.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Cores.
    pub cores: usize,
    /// What it holds.
    pub memory: ByteCount,
    /// One core.
    pub core: Core,
    /// What sending costs the sender, and receiving the receiver.
    pub message: Seconds,
    /// Until a message has arrived.
    pub latency: Seconds,
}

/// Emulated links, buses and memories: they slow a run down, and show what a plan hides.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    /// From each rank to the others; left out: messages take no time.
    pub links: Option<Links>,
    /// Between each rank and its host, each way; left out: as fast as memory.
    pub bus: Option<Bandwidth>,
    /// What each rank may hold; left out: its share of the machine's memory.
    pub device: Option<ByteCount>,
    /// What each rank computes in products, with both its actors; left out: as fast as the machine,
    /// whose cores all share.
    pub compute: Option<Flops>,
}

/// The link of a rank.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// What a rank sends, while it receives as much.
    pub each: Bandwidth,
    /// Until the first byte arrives.
    pub latency: Seconds,
}

/// A core.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// Peak of BF16 products.
    pub bf16: Flops,
    /// Peak of F32.
    pub f32: Flops,
    /// To and from memory.
    pub bandwidth: Bandwidth,
    /// Time to begin an operator.
    pub launch: Seconds,
    /// Part of the peak that matrix products reach: an assumption.
    pub achieved: f64,
}

impl Cluster {
    /// The cluster in plain numbers.
    pub fn plain(&self) -> cluster::Cluster {
        match self {
            Cluster::Cluster(nodes) => cluster::Cluster::Gpus(nodes.plain()),
            Cluster::Machine(machine) => cluster::Cluster::Machine(machine.plain()),
            Cluster::Local(local) => cluster::Cluster::Machine(local.plain()),
        }
    }

    /// Numbers that must be above zero, with their paths.
    pub fn positives(&self) -> Vec<(&'static str, f64)> {
        match self {
            Cluster::Cluster(Nodes { nodes, node, fabric }) => {
                let Inside::NvLink { each: inside, .. } = node.inside;
                let Fabric::Rails { count, each, .. } = *fabric;
                vec![
                    ("nodes", *nodes as f64),
                    ("node.gpus", node.gpus as f64),
                    ("node.gpu.bf16", node.gpu.bf16.0),
                    ("node.gpu.f32", node.gpu.f32.0),
                    ("node.gpu.hbm", node.gpu.hbm.0),
                    ("node.gpu.achieved", node.gpu.achieved),
                    ("node.inside.each", inside.0),
                    ("node.host.link", node.host.link.0),
                    ("fabric.count", count as f64),
                    ("fabric.each", each.0),
                ]
            }
            Cluster::Machine(Machine { cores, core, .. }) => vec![
                ("cores", *cores as f64),
                ("core.bf16", core.bf16.0),
                ("core.f32", core.f32.0),
                ("core.bandwidth", core.bandwidth.0),
                ("core.achieved", core.achieved),
            ],
            Cluster::Local(Local { links, bus, device, compute }) => {
                let links = links.map(|links| ("links.each", links.each.0));
                let bus = bus.map(|bus| ("bus", bus.0));
                let device = device.map(|device| ("device", device.0 as f64));
                let compute = compute.map(|compute| ("compute", compute.0));
                [links, bus, device, compute].into_iter().flatten().collect()
            }
        }
    }
}

impl Nodes {
    fn plain(&self) -> Gpus {
        let Node { gpus, gpu, inside, host } = &self.node;
        let Inside::NvLink { each: inside, latency: near } = *inside;
        let Fabric::Rails { count, each, latency: far } = self.fabric;
        Gpus {
            nodes: self.nodes,
            gpus: *gpus,
            gpu: Device {
                name: gpu.name.clone(),
                memory: gpu.memory.0,
                bf16: gpu.bf16.0,
                f32: gpu.f32.0,
                bandwidth: gpu.hbm.0,
                launch: gpu.launch.0,
                achieved: gpu.achieved,
            },
            inside: Link { each: inside.0, latency: near.0 },
            fabric: Link { each: each.0 * count as f64 / *gpus as f64, latency: far.0 },
            host: Host { memory: host.memory.0, link: host.link.0 },
        }
    }
}

impl Machine {
    fn plain(&self) -> cluster::Machine {
        let core = &self.core;
        cluster::Machine {
            cores: self.cores,
            core: Device {
                name: "core".into(),
                memory: self.memory.0,
                bf16: core.bf16.0,
                f32: core.f32.0,
                bandwidth: core.bandwidth.0,
                launch: core.launch.0,
                achieved: core.achieved,
            },
            message: self.message.0,
            latency: self.latency.0,
            link: None,
            host: None,
            device: None,
            apart: false,
        }
    }
}

impl Local {
    fn plain(&self) -> cluster::Machine {
        let link = self.links.map(|it| Link { each: it.each.0, latency: it.latency.0 });
        let (host, device) = (self.bus.map(|bus| bus.0), self.device.map(|bytes| bytes.0));
        let machine = cluster::Machine { link, host, device, ..machine::this() };
        let Some(Flops(rate)) = self.compute else { return machine };
        let core = Device {
            bf16: rate,
            f32: rate,
            bandwidth: f64::INFINITY,
            launch: 0.0,
            achieved: 1.0,
            ..machine.core.clone()
        };
        cluster::Machine { core, apart: true, message: 0.0, latency: 0.0, ..machine }
    }
}
