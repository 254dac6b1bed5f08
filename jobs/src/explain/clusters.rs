//! The fields and variants of clusters.

use super::{Entry, Topic, entry};

/// The table.
pub const CLUSTERS: &[Entry] = &[
    entry(
        Topic::Field,
        "cluster",
        "Where the plan is to run: Preset, File, Cluster or Machine; left out: this machine.",
        "cluster: Preset(\"h800x256\")",
    ),
    entry(Topic::Variant, "Cluster", "Nodes of GPUs, one for each rank.", "Cluster(nodes: 32)"),
    entry(
        Topic::Variant,
        "Machine",
        "One machine without GPUs, whose cores all ranks share.",
        "cluster: Machine(cores: 16)",
    ),
    entry(
        Topic::Variant,
        "Local",
        "This machine, whose ranks are given links, buses and memories of their own, to see what \
         a plan hides.",
        "cluster: Local(links: (each: \"1GB/s\", latency: \"50us\"), bus: \"2GB/s\")",
    ),
    entry(
        Topic::Field,
        "links",
        "The emulated link from each rank to the others.",
        "links: (each: \"1GB/s\", latency: \"50us\")",
    ),
    entry(
        Topic::Field,
        "bus",
        "Bytes a second between a rank and its host, each way, emulated.",
        "bus: \"2GB/s\"",
    ),
    entry(
        Topic::Field,
        "compute",
        "What each rank computes in products, emulated: an instruction takes no less time than its \
         operations do at this rate, so that many ranks can be timed on few cores.",
        "compute: \"10GF\"",
    ),
    entry(Topic::Field, "node", "One node of a cluster.", "node: (gpus: 8)"),
    entry(Topic::Field, "gpus", "GPUs of a node.", "gpus: 8"),
    entry(Topic::Field, "gpu", "One GPU.", "gpu: (name: \"H800\", memory: \"80GiB\")"),
    entry(Topic::Field, "memory", "Bytes that a device or host holds.", "memory: \"80GiB\""),
    entry(
        Topic::Field,
        "bf16",
        "Peak of BF16 products, in operations a second.",
        "bf16: \"989TF\"",
    ),
    entry(Topic::Field, "f32", "Peak of F32, in operations a second.", "f32: \"67TF\""),
    entry(Topic::Field, "hbm", "Bytes a second to a GPU's memory.", "hbm: \"3.35TB/s\""),
    entry(Topic::Field, "bandwidth", "Bytes a second to memory.", "bandwidth: \"10GB/s\""),
    entry(Topic::Field, "launch", "Time to begin one operator.", "launch: \"5us\""),
    entry(
        Topic::Field,
        "achieved",
        "Part of the peak that matrix products reach. An assumption: measure, and give a profile.",
        "achieved: 0.55",
    ),
    entry(
        Topic::Field,
        "inside",
        "Links between the GPUs of a node.",
        "inside: NvLink(each: \"200GB/s\", latency: \"3us\")",
    ),
    entry(
        Topic::Variant,
        "NvLink",
        "NVLink through a switch; `each` is what a GPU sends.",
        "inside: NvLink(each: \"200GB/s\", latency: \"3us\")",
    ),
    entry(
        Topic::Field,
        "fabric",
        "Links between nodes.",
        "fabric: Rails(count: 8, each: \"400Gb/s\", latency: \"8us\")",
    ),
    entry(
        Topic::Variant,
        "Rails",
        "Network cards that the GPUs of a node share evenly.",
        "fabric: Rails(count: 8, each: \"400Gb/s\", latency: \"8us\")",
    ),
    entry(Topic::Field, "count", "Network cards of a node.", "count: 8"),
    entry(
        Topic::Field,
        "each",
        "What one of them sends in a second, one way.",
        "each: \"400Gb/s\"",
    ),
    entry(Topic::Field, "latency", "Time until a message begins to arrive.", "latency: \"8us\""),
    entry(
        Topic::Field,
        "host",
        "What stands beside the GPUs of a node.",
        "host: (memory: \"2TiB\", link: \"55GB/s\")",
    ),
    entry(Topic::Field, "link", "Between a GPU and its host, each way.", "link: \"55GB/s\""),
    entry(Topic::Field, "cores", "Cores of a machine.", "cores: 16"),
    entry(
        Topic::Field,
        "core",
        "One core of a machine.",
        "core: (f32: \"100GF\", bandwidth: \"10GB/s\")",
    ),
    entry(
        Topic::Field,
        "message",
        "What a message costs its sender, and its receiver, in time.",
        "message: \"10us\"",
    ),
];
