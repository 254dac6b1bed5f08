//! The fields of jobs: actors, learner, output.

use super::{Entry, Topic, entry};

/// The table.
pub const FIELDS: &[Entry] = &[
    entry(Topic::Field, "name", "Name of the run, of a phase, or of a node.", "name: \"k2-nano\""),
    entry(
        Topic::Field,
        "seed",
        "Key of all random numbers; the same seed gives the same run.",
        "seed: 42",
    ),
    entry(
        Topic::Field,
        "precision",
        "Format of activations and of the weights that compute: F32 or Bf16.",
        "precision: F32",
    ),
    entry(
        Topic::Field,
        "device",
        "What the job computes on: Auto, Cpu or Gpu. Auto takes the GPUs that `doctor` finds no \
         fault with, and the processor if there is none. Ranks are dealt out over the GPUs, which \
         several of them share if there are more; CUDA_VISIBLE_DEVICES hides some. \
         Losses differ in their last digits; plans on one kind of device give the same bits. In \
         `cluster: Local(..)` the bytes that a rank may hold, emulated.",
        "device: Auto",
    ),
    entry(
        Topic::Field,
        "base",
        "A job, by path or library name, that this one changes. Records merge, lists \
         replace.",
        "base: \"k2-nano\"",
    ),
    entry(
        Topic::Field,
        "model",
        "The trained network: Preset, File, Decoder, Graph or HuggingFace.",
        "model: Preset(\"k2-nano\")",
    ),
    entry(
        Topic::Field,
        "plan",
        "How the network is spread: Named(..), or a plan in place; left out: on one \
         rank. In a phase a plan in place changes single fields of the job's plan; left out: the \
         job's plan. `--plan` chooses the job's.",
        "plan: Named(\"main\")",
    ),
    entry(
        Topic::Field,
        "plans",
        "Plans to choose from, by name.",
        "plans: {\"main\": (mesh: (pp: 2))}",
    ),
    entry(Topic::Field, "like", "A plan, by name, that this one changes.", "like: \"main\""),
    entry(
        Topic::Field,
        "tokenizer",
        "How text becomes tokens: Bytes, File or Bpe.",
        "tokenizer: Bpe(vocab: 4096)",
    ),
    entry(
        Topic::Field,
        "expect",
        "What must follow from the plan; `check` ends with code 4 if it does not.",
        "expect: (max_memory: \"72GiB\", max_bubble: 0.08)",
    ),
    entry(
        Topic::Field,
        "max_memory",
        "Bytes that the fullest rank may hold.",
        "max_memory: \"72GiB\"",
    ),
    entry(
        Topic::Field,
        "max_bubble",
        "Part of the programs' time in which ranks may idle, from 0 to 1.",
        "max_bubble: 0.08",
    ),
    entry(
        Topic::Field,
        "min_mfu",
        "Least part of all devices' peak that the model's operations must use, from 0 to 1.",
        "min_mfu: 0.35",
    ),
    entry(Topic::Field, "max_step", "Time that a step may take.", "max_step: \"30s\""),
    entry(
        Topic::Field,
        "actors",
        "Who takes part, by name; exactly one is a Train.",
        "actors: {\"text\": Corpus(from: Text(\"text/*.txt\"))}",
    ),
    entry(
        Topic::Field,
        "stop",
        "When the run is over: Steps(..) or Tokens(..), from the beginning of the run. A run with \
         phases ends with the last of them, or here if that comes first; it needs no `stop`.",
        "stop: Steps(100)",
    ),
    entry(
        Topic::Field,
        "checkpoint",
        "Where the state of the run is kept, how often, and how many of the newest.",
        "checkpoint: (dir: \"runs/mine\", every: \"100 steps\", keep: 2)",
    ),
    entry(
        Topic::Field,
        "metrics",
        "Where figures of each step go.",
        "metrics: [Jsonl(\"runs/mine/metrics.jsonl\")]",
    ),
    entry(
        Topic::Field,
        "from",
        "Where documents are read; in a model: what a node reads; in a learning rate: the first \
         rate, left out: the one at which the phase before ended.",
        "from: RustSources",
    ),
    entry(
        Topic::Field,
        "glob",
        "Files by pattern; ** stands for any folders.",
        "glob: \"data/**/*.jsonl\"",
    ),
    entry(Topic::Field, "field", "Field of a JSON object that holds the text.", "field: \"text\""),
    entry(
        Topic::Field,
        "column",
        "Column of a Parquet file that holds the text.",
        "column: \"text\"",
    ),
    entry(Topic::Field, "bytes", "Bytes of text at most.", "bytes: \"8MiB\""),
    entry(
        Topic::Field,
        "init",
        "Where the weights come from: Fresh, or HuggingFace(\"folder\").",
        "init: Fresh",
    ),
    entry(Topic::Field, "loss", "What is minimised.", "loss: [CrossEntropy(of: \"text\")]"),
    entry(Topic::Field, "of", "The corpus or mix that is read.", "of: \"text\""),
    entry(
        Topic::Field,
        "context",
        "Tokens of a sequence; a phase may have its own.",
        "context: \"4Ki\"",
    ),
    entry(
        Topic::Field,
        "batch",
        "Tokens of a step over all ranks; whole sequences.",
        "batch: \"64Ki\"",
    ),
    entry(
        Topic::Field,
        "lanes",
        "Fixed lanes in which gradients are summed, so that every dp * ep that divides \
         them gives the same bits. Left out, each holder of a parameter has one sum, which \
         takes the least memory; then bits depend on dp and ep.",
        "lanes: 4",
    ),
    entry(
        Topic::Field,
        "lr",
        "The learning rate over time: Wsd, Constant, Cosine or Linear. In a phase it is counted \
         from the beginning of the phase; left out: the rate of the phase before goes on.",
        "lr: Wsd(peak: 2e-3, warmup: \"20 steps\")",
    ),
    entry(
        Topic::Field,
        "phases",
        "Stretches of the run, one after the other, each with a name and a number of tokens. A \
         phase may have its own `loss` (what is read), `context`, `batch`, `lr`, `yarn` and \
         `plan`; what it leaves out is as the learner and the job say, but the learning rate, \
         which goes on. Weights and optimizer states go from phase to phase. A corpus that both \
         read goes on where it stood; with another context it is cut into sequences anew, in a new \
         order. A checkpoint is written at the end of each phase. All phases are checked before \
         the first step.",
        "phases: [(name: \"main\", tokens: \"15.5T\"), (name: \"anneal\", tokens: \"400G\", lr: \
         Linear(to: 7e-6))]",
    ),
    entry(Topic::Field, "peak", "The highest learning rate.", "peak: 2e-3"),
    entry(
        Topic::Field,
        "warmup",
        "Length of the linear rise of the learning rate.",
        "warmup: \"20 steps\"",
    ),
    entry(
        Topic::Field,
        "stable",
        "Where the peak of the learning rate ends, counted from the start of the run, or of the \
         phase that says it.",
        "stable: \"150 steps\"",
    ),
    entry(
        Topic::Field,
        "decay",
        "How the learning rate falls after `stable`: Cosine or Linear.",
        "decay: Cosine(to: 2e-5, over: \"50 steps\")",
    ),
    entry(
        Topic::Field,
        "to",
        "The last learning rate; of `offload`, where activations go: Host.",
        "to: 2e-5",
    ),
    entry(
        Topic::Field,
        "over",
        "How long the learning rate falls; Cosine and Linear without Wsd may leave it out: the \
         whole phase, or the whole run.",
        "over: \"50 steps\"",
    ),
    entry(
        Topic::Field,
        "optimizer",
        "Rule that turns gradients into weights: MuonClip or AdamW.",
        "optimizer: MuonClip(weight_decay: 0.1)",
    ),
    entry(
        Topic::Field,
        "momentum",
        "Share of the past in Muon's momentum; 0.95.",
        "momentum: 0.95",
    ),
    entry(
        Topic::Field,
        "weight_decay",
        "Decay of the weights, times the learning rate; 0.1.",
        "weight_decay: 0.1",
    ),
    entry(
        Topic::Field,
        "update_rms",
        "Root mean square of a Muon update before the learning rate; 0.2.",
        "update_rms: 0.2",
    ),
    entry(
        Topic::Field,
        "qk_clip",
        "Largest attention logit before queries and keys are scaled down; 100 in Kimi \
         K2.",
        "qk_clip: 100",
    ),
    entry(Topic::Field, "nesterov", "Whether Muon looks one step ahead.", "nesterov: true"),
    entry(Topic::Field, "steps", "Newton-Schulz steps of Muon; 5.", "steps: 5"),
    entry(
        Topic::Field,
        "balance_rate",
        "Step of the router's bias towards even load.",
        "balance_rate: 0.001",
    ),
    entry(
        Topic::Field,
        "rest",
        "AdamW for embeddings, norms and head.",
        "rest: AdamW(betas: (0.9, 0.95), eps: 1e-8)",
    ),
    entry(
        Topic::Field,
        "betas",
        "Shares of the past in AdamW's two moments.",
        "betas: (0.9, 0.95)",
    ),
    entry(Topic::Field, "eps", "Keeps a division from dividing by zero.", "eps: 1e-8"),
    entry(
        Topic::Field,
        "clip",
        "Norm of the whole gradient above which those of AdamW's parameters are scaled down.",
        "clip: 1.0",
    ),
    entry(Topic::Field, "dir", "Folder of the run.", "dir: \"runs/mine\""),
    entry(Topic::Field, "every", "How often.", "every: \"30min\""),
    entry(Topic::Field, "keep", "How many of the newest checkpoints are kept.", "keep: 3"),
    entry(
        Topic::Field,
        "export",
        "What is written at the end of the run for other programs.",
        "export: HuggingFace(dtype: Bf16)",
    ),
    entry(Topic::Field, "dtype", "Format of the exported weights.", "dtype: Bf16"),
];
