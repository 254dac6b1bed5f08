//! temp
use graphs::{Decoder, ModelGraph, PlanSpec, mesh::Mesh, plan::Batch};
use ops::{
    DType,
    optim::{MuonClip, Optimizer},
};
use runtime::{Cluster, Feed, FeedError, Setup, rate::Rate};
use std::{collections::BTreeMap, time::Duration};
struct F;
impl Feed for F {
    fn next(&mut self, s: usize, c: usize) -> Result<(Vec<i32>, Vec<i32>), FeedError> {
        let v: Vec<i32> = (0..s * c)
            .map(|i| ((i as u64).wrapping_mul(0x9E3779B97F4A7C15) >> 40) as i32 % 4096)
            .collect();
        Ok((v.clone(), v))
    }
    fn position(&self) -> serde_json::Value {
        0.into()
    }
    fn seek(&mut self, _: &serde_json::Value) -> Result<(), FeedError> {
        Ok(())
    }
}
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let mini = a[5] == 1;
    let d = if mini {
        Decoder {
            layers: 8,
            dense_layers: 1,
            hidden: 512,
            dense_width: 1536,
            vocab: 8192,
            heads: 8,
            q_rank: Some(192),
            kv_rank: 128,
            nope: 64,
            rope: 32,
            value: 64,
            experts: 32,
            experts_per_token: 4,
            shared_experts: 1,
            expert_width: 256,
            groups: 1,
            groups_per_token: 1,
            scaling: 2.0,
            rope_theta: 50000.0,
            yarn: None,
            norm_eps: 1e-6,
            init_std: 0.02,
        }
    } else {
        Decoder {
            layers: 4,
            dense_layers: 1,
            hidden: 256,
            dense_width: 768,
            vocab: 4096,
            heads: 4,
            q_rank: Some(96),
            kv_rank: 64,
            nope: 32,
            rope: 16,
            value: 32,
            experts: 16,
            experts_per_token: 4,
            shared_experts: 1,
            expert_width: 128,
            groups: 1,
            groups_per_token: 1,
            scaling: 2.0,
            rope_theta: 50000.0,
            yarn: None,
            norm_eps: 1e-6,
            init_std: 0.02,
        }
    };
    let graph = ModelGraph::new(&d.expand()).unwrap();
    let spec = PlanSpec {
        mesh: Mesh { pp: a[0], vpp: a[1], ep: a[2], dp: a[3] },
        microbatch: a[4],
        ..PlanSpec::default()
    };
    let batch = Batch { sequences: 8, context: 256, microbatch: 1, lanes: a[2] * a[3] };
    let plan = graphs::lower(&graph, &spec, batch).unwrap();
    let setup = Setup {
        plan,
        graph,
        optimizer: Optimizer::MuonClip(MuonClip::default()),
        rate: Rate { peak: 0.002, warmup_end: 0.0, decay: None },
        clip: None,
        dtype: if a.len() > 6 && a[6] == 1 { DType::Bf16 } else { DType::F32 },
        seed: 1,
        audit: false,
        tensors: BTreeMap::new(),
        step: 0,
        tokens: 0,
        patience: Duration::from_secs(30),
    };
    let mut c = Cluster::start(setup, Box::new(F)).unwrap();
    for _ in 0..8 {
        let r = c.step().unwrap();
        println!(
            "loss {:.4} {:.3}s {:.0} tok/s idle {:.2} matmul {:.2} mem {}",
            r.loss,
            r.step_seconds,
            r.tokens_per_second,
            r.bubble,
            r.matmul_share,
            r.memory_bytes >> 20
        );
    }
}
