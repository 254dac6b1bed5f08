//! How long it takes to lower Kimi K2 to a plan, proof and credits included, and the most memory.
//!
//! `cargo bench -p troupe-graphs --bench lower`. Each size runs in a process of its own, since the
//! operating system tells only the most memory that a process ever held. Last, a line through the
//! times by least squares, against the microbatches of a data rank.

use std::{process::Command, time::Instant};

use graphs::{
    Decoder, ModelGraph, PlanSpec,
    mesh::Mesh,
    plan::Batch,
    schedule::{Interleaved, Schedule},
};
use ops::Yarn;

/// Replicas: 256 ranks, and 2,048.
const REPLICAS: [usize; 2] = [1, 8];

/// Microbatches of a data rank.
const MICROBATCHES: [usize; 5] = [64, 128, 256, 512, 1024];

/// Runs of which the fastest counts.
const RUNS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == "--one") {
        Some(at) => one(number(&arguments[at + 1]), number(&arguments[at + 2])),
        None => REPLICAS.into_iter().for_each(all),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// All lengths of a step, and the line through their times.
fn all(dp: usize) {
    println!("kimi-k2-1t, pp 16, vpp 2, ep 16, dp {dp}: {} ranks", 256 * dp);
    println!("{:>12} {:>10} {:>10} {:>12}", "microbatches", "ms", "MiB", "instructions");
    let mut points = Vec::new();
    for microbatches in MICROBATCHES {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args(["--one", &dp.to_string(), &microbatches.to_string()]);
        let output = command.output().expect("this program runs").stdout;
        let text = String::from_utf8(output).expect("numbers are text");
        let [seconds, bytes, instructions] = text
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect::<Vec<f64>>()[..]
        else {
            panic!("three numbers, got {text}");
        };
        let (ms, mib) = (1e3 * seconds, bytes / f64::from(1 << 20));
        println!("{microbatches:>12} {ms:>10.1} {mib:>10.1} {instructions:>12}");
        points.push((microbatches as f64, ms));
    }
    let (base, slope, fit) = line(&points);
    println!("fit: {base:.1} ms + {slope:.3} ms for each microbatch, R2 = {fit:.4}\n");
}

/// Lowers once, prints seconds, bytes of the process at most, instructions.
fn one(dp: usize, microbatches: usize) {
    let graph = ModelGraph::new(&kimi_k2().expand()).expect("the model is sound");
    let rule = Interleaved { extra_warmup: 1, split_backward: true, ..Interleaved::PLAIN };
    let spec = PlanSpec {
        mesh: Mesh { pp: 16, vpp: 2, ep: 16, dp },
        schedule: Some(Schedule::Interleaved1F1B(rule)),
        ..PlanSpec::default()
    };
    let sequences = microbatches * 16 * dp;
    let batch = Batch { sequences, context: 4096, microbatch: 1, lanes: None };
    let mut best = f64::INFINITY;
    let mut instructions = 0;
    for _ in 0..RUNS {
        let start = Instant::now();
        let plan = graphs::lower(&graph, &spec, batch).expect("the plan is sound");
        best = best.min(start.elapsed().as_secs_f64());
        instructions = plan.numbered().count();
    }
    println!("{best} {} {instructions}", peak_bytes());
}

/// The most memory that this process has held; 0 where the system does not tell.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Least squares: what stands at zero, the slope, and the share of the variance explained.
fn line(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let n = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |value: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|&(a, b)| value(a - x, b - y)).sum()
    };
    let (across, both, up) = (sum(&|a, _| a * a), sum(&|a, b| a * b), sum(&|_, b| b * b));
    let slope = both / across;
    (y - slope * x, slope, both * both / (across * up))
}

/// `jobs/library/models/kimi-k2-1t.ron`, which this crate cannot read.
fn kimi_k2() -> Decoder {
    Decoder {
        layers: 61,
        dense_layers: 1,
        hidden: 7168,
        dense_width: 18432,
        vocab: 163_840,
        heads: 64,
        q_rank: Some(1536),
        kv_rank: 512,
        nope: 128,
        rope: 64,
        value: 128,
        experts: 384,
        experts_per_token: 8,
        shared_experts: 1,
        expert_width: 2048,
        groups: 1,
        groups_per_token: 1,
        scaling: 2.827,
        rope_theta: 50_000.0,
        yarn: Some(Yarn {
            factor: 32.0,
            original: 4096,
            beta_fast: 1.0,
            beta_slow: 1.0,
            mscale: 1.0,
            mscale_all_dim: 1.0,
        }),
        norm_eps: 1e-6,
        init_std: 0.02,
    }
}
