//! What actors tell the conductor, and what a step tells the user.

use graphs::{
    address::Address,
    edge::Class,
    memory::{ActorMemory, Bytes, Rows},
    overlap::Overlap,
    share::Exchange,
};
use kernels::squares::Squares;
use serde::Serialize;

use crate::{digest, snapshot::Pieces, trace::Notes};

/// A message to the conductor.
#[derive(Debug)]
pub enum Report {
    /// The loader has sent all units of a step.
    Loaded {
        /// Where the feed stands after this step, for a checkpoint.
        position: serde_json::Value,
    },
    /// A compute actor has finished its program.
    Computed {
        /// Who.
        from: Address,
        /// What it saw on the way.
        seen: Seen,
        /// What it held on the way.
        memory: Box<Measured>,
    },
    /// An actor has joined the gradients of all its slices.
    Joined {
        /// Who.
        from: Address,
        /// One entry for each slice.
        gradients: Vec<Joined>,
    },
    /// A compute actor has all its new weights.
    Updated {
        /// Who.
        from: Address,
        /// What it did for that.
        done: Box<Updated>,
        /// What it noted, if the step is recorded.
        notes: Option<Notes>,
    },
    /// An actor's slices of values and optimizer states.
    Snapshot {
        /// Who.
        from: Address,
        /// By parameter and first row.
        pieces: Pieces,
    },
    /// A rank would hold more than its device does.
    Full {
        /// Whose instruction it was.
        from: Address,
        /// The instruction in words.
        action: String,
        /// What grew most.
        class: Class,
        /// By how much, in bytes.
        grown: u64,
        /// What the rank would hold, in bytes.
        held: u64,
        /// What its device holds, in bytes.
        limit: u64,
    },
    /// An actor could not go on.
    Failed {
        /// Who, in words.
        actor: String,
        /// What it was doing.
        action: String,
        /// Why it could not.
        cause: String,
        /// Whether a GPU had no room for what it was to hold.
        is_full: bool,
    },
}

/// Hash of the bits of a tensor.
pub type Hash = [u8; 32];

/// One joined gradient of a slice.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Index among the parameters of the model.
    pub parameter: usize,
    /// Sum of squares.
    pub squares: Squares,
    /// Hash of its rows, if the cluster audits.
    pub hash: Option<Hash>,
}

impl Joined {
    /// Adds another slice of the same parameter.
    pub(crate) fn add(&mut self, slice: &Joined) {
        self.squares.add(&slice.squares);
        if let (Some(hash), Some(other)) = (&mut self.hash, &slice.hash) {
            digest::add(hash, other);
        }
    }
}

/// What a compute actor did in the optimizer phase.
#[derive(Clone, Debug, Default)]
pub struct Updated {
    /// Hash of the rows of every slice that it updates; empty unless the cluster audits.
    pub parameters: Vec<(usize, Hash)>,
    /// Bytes that it sent.
    pub sent: Exchange,
    /// Bytes that others sent it.
    pub received: Exchange,
    /// Bytes of the joined gradients of its slices.
    pub joined: u64,
    /// Matrices that it ran Newton-Schulz on.
    pub newton_schulz: usize,
}

/// What a compute actor saw during a step.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Loss of each unit, as (unit, sum over tokens in nats, tokens).
    pub losses: Vec<(usize, f64, usize)>,
    /// Largest softmax input per head, by index among the model's clips.
    pub max_logits: Vec<(usize, Vec<f32>)>,
    /// Tokens per expert, by router node.
    pub loads: Vec<(usize, Vec<u64>)>,
    /// Seconds spent computing.
    pub busy_seconds: f64,
    /// Seconds of those spent in matrix products.
    pub product_seconds: f64,
    /// Seconds spent waiting for copies to the host and back.
    pub copy_wait_seconds: f64,
}

/// What a compute actor held during a step.
#[derive(Clone, Debug)]
pub struct Measured {
    /// In the plan's terms; messages are those that came, not those that could.
    pub actor: ActorMemory,
    /// What each instruction left alive, if the cluster audits.
    pub trail: Vec<Bytes>,
    /// Rows of each source by chunk, visit and microbatch, if the cluster audits.
    pub rows: Vec<((usize, usize, usize), Vec<u64>)>,
}

/// What all compute actors held during a step.
#[derive(Clone, Debug, Default)]
pub struct MemoryReport {
    /// Every actor, in the order of addresses.
    pub actors: Vec<ActorMemory>,
    /// What each instruction of each actor left alive, if the cluster audits.
    pub trails: Vec<Vec<Bytes>>,
    /// Where rows went, if the cluster audits; the scan of the plan takes them.
    pub rows: Rows,
}

/// One finished step, as metrics record it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepReport {
    /// Steps done since the start of training, this one included.
    pub step: u64,
    /// Phase of the job that it belongs to; whoever drives the steps fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Tokens trained on so far, this step included.
    pub tokens: u64,
    /// Mean negative log-likelihood per token, nats.
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Square root of the sum of squares of all gradients.
    pub grad_norm: f64,
    /// Largest input to any softmax of attention.
    pub max_logit: f32,
    /// Largest softmax input of each head, by attention node in the order of the model.
    #[serde(skip)]
    pub max_logits: Vec<Vec<f32>>,
    /// Heads that QK-Clip scaled.
    pub clipped_heads: usize,
    /// Tokens per second of this step.
    pub tokens_per_second: f64,
    /// Wall time of the step, seconds.
    pub step_seconds: f64,
    /// Share of the compute phase in which ranks had nothing to compute.
    pub bubble: f64,
    /// Share of the busy time spent in matrix products.
    pub matmul_share: f64,
    /// Most bytes each actor held at once, summed over actors: parameters, states, gradients,
    /// activations and messages.
    pub memory_bytes: usize,
    /// Most loaded expert over the mean, worst layer; 1 is perfect balance, 0 without experts.
    pub load_max_over_mean: f64,
    /// How much of what travelled over links and buses was hidden by computation, in seconds over
    /// all ranks; only where the cluster emulates some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// Seconds that all actors together waited for copies to the host and back.
    pub copy_wait_seconds: f64,
    /// What each actor held.
    #[serde(skip)]
    pub memory: MemoryReport,
    /// Bytes that each actor sent in the optimizer phase.
    #[serde(skip)]
    pub exchange: Vec<(Address, Exchange)>,
    /// Hashes of this step, if the cluster audits.
    #[serde(skip)]
    pub audit: Audit,
}

/// Hashes of everything a plan must not change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Audit {
    /// Bits of the loss.
    pub loss: u64,
    /// Hash of each gradient, by parameter.
    pub gradients: Vec<Option<Hash>>,
    /// Hash of each parameter after the update.
    pub parameters: Vec<Option<Hash>>,
    /// Calls of Newton-Schulz over all actors: one for each matrix that Muon moves.
    pub newton_schulz: usize,
}
