//! A small model, a feed of numbers and a setup, shared by the tests of the actors.

use std::{collections::BTreeMap, time::Duration};

use graphs::{Decoder, ModelGraph, Plan, PlanSpec, plan::Batch};
use ops::{
    DType, Place,
    optim::{MuonClip, Optimizer},
};
use runtime::{Feed, FeedError, Setup, rate::Rate};

/// A small K2: latent attention, one dense layer and two with experts.
pub fn decoder() -> Decoder {
    Decoder {
        layers: 3,
        dense_layers: 1,
        hidden: 32,
        dense_width: 48,
        vocab: 64,
        heads: 2,
        q_rank: Some(16),
        kv_rank: 12,
        nope: 8,
        rope: 4,
        value: 8,
        experts: 8,
        experts_per_token: 2,
        shared_experts: 1,
        expert_width: 16,
        groups: 1,
        groups_per_token: 1,
        scaling: 1.4,
        rope_theta: 10000.0,
        yarn: None,
        norm_eps: 1e-6,
        init_std: 0.1,
    }
}

/// The graph of a decoder.
pub fn graph(decoder: &Decoder) -> ModelGraph {
    ModelGraph::new(&decoder.expand()).unwrap()
}

/// Sixteen sequences of twelve tokens in four lanes.
pub const BATCH: Batch = Batch { sequences: 16, context: 12, microbatch: 1, lanes: Some(4) };

/// Lowers a plan for [`BATCH`].
pub fn plan(graph: &ModelGraph, spec: &PlanSpec) -> Plan {
    graphs::lower(graph, spec, BATCH).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// A setup with plain settings and no patience for hangs.
pub fn setup(graph: ModelGraph, plan: Plan) -> Setup {
    let places = vec![Place::Host; plan.mesh.ranks()];
    Setup {
        plan,
        graph,
        optimizer: Optimizer::MuonClip(MuonClip::default()),
        rate: Rate { begin: 0, peak: 0.02, warmup_end: 0.0, decay: None },
        clip: None,
        dtype: DType::F32,
        seed: 7,
        audit: false,
        tensors: BTreeMap::new(),
        step: 0,
        tokens: 0,
        patience: Duration::from_secs(20),
        places,
        machine: None,
    }
}

/// An endless row of tokens: each follows from the one before and a slow drift.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Sequences given so far.
    pub next: u64,
    /// Number of different tokens.
    pub vocab: i32,
}

impl Numbers {
    /// The row from its beginning.
    pub fn new(vocab: usize) -> Box<Self> {
        Box::new(Numbers { next: 0, vocab: vocab as i32 })
    }

    fn token(&self, sequence: u64, position: usize) -> i32 {
        let start = (sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as i32;
        (start % self.vocab + 3 * position as i32 + (position as i32 / 4)) % self.vocab
    }
}

impl Feed for Numbers {
    fn next(
        &mut self,
        sequences: usize,
        context: usize,
    ) -> Result<(Vec<i32>, Vec<i32>), FeedError> {
        let rows = self.next..self.next + sequences as u64;
        self.next = rows.end;
        let read = |shift: usize| {
            let row = |q: u64| (0..context).map(move |i| (q, i + shift));
            rows.clone().flat_map(row).map(|(q, i)| self.token(q, i)).collect()
        };
        Ok((read(0), read(1)))
    }

    fn position(&self) -> serde_json::Value {
        self.next.into()
    }

    fn seek(&mut self, position: &serde_json::Value) -> Result<(), FeedError> {
        self.next = position.as_u64().expect("a number, as position gave");
        Ok(())
    }
}
