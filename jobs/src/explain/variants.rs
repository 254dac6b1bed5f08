//! The variants: words that stand for one of several forms.

use super::{Entry, Topic, entry};

/// The table.
pub const VARIANTS: &[Entry] = &[
    entry(
        Topic::Variant,
        "Preset",
        "A model or a cluster that ships with the program.",
        "model: Preset(\"k2-nano\")",
    ),
    entry(
        Topic::Variant,
        "File",
        "The value in another file, relative to this one; a tokenizer.json for \
         `tokenizer`.",
        "model: File(\"model.ron\")",
    ),
    entry(
        Topic::Variant,
        "Decoder",
        "A model of the DeepSeek-V3 and Kimi-K2 family in a few numbers.",
        "model: Decoder(layers: 4, hidden: 256)",
    ),
    entry(
        Topic::Variant,
        "Graph",
        "A model as a graph of operators; `troupe resolve --model` prints one.",
        "model: Graph(nodes: [Repeat(\"dense\", 1)])",
    ),
    entry(
        Topic::Variant,
        "HuggingFace",
        "A folder that transformers reads.",
        "model: HuggingFace(\"folder\")",
    ),
    entry(
        Topic::Variant,
        "Repeat",
        "A block, so many times in a row.",
        "nodes: [Repeat(\"moe\", 3)]",
    ),
    entry(Topic::Variant, "Named", "One of the job's plans.", "plan: Named(\"main\")"),
    entry(
        Topic::Variant,
        "Auto",
        "The GPUs of this machine, or the processor if there is none.",
        "device: Auto",
    ),
    entry(Topic::Variant, "Cpu", "The processor, with all its cores.", "device: Cpu"),
    entry(
        Topic::Variant,
        "Gpu",
        "The GPUs of this machine; without one the job is refused.",
        "device: Gpu",
    ),
    entry(Topic::Variant, "F32", "Single precision.", "precision: F32"),
    entry(Topic::Variant, "Bf16", "The upper half of an F32.", "precision: Bf16"),
    entry(
        Topic::Variant,
        "Bytes",
        "Every byte is a token, and one more ends a document.",
        "tokenizer: Bytes",
    ),
    entry(
        Topic::Variant,
        "Bpe",
        "Byte pairs, learnt from the corpus.",
        "tokenizer: Bpe(vocab: 4096)",
    ),
    entry(
        Topic::Variant,
        "Corpus",
        "Documents from one source.",
        "actors: {\"text\": Corpus(from: RustSources)}",
    ),
    entry(
        Topic::Variant,
        "Mix",
        "Several corpora by weight; only ratios count.",
        "actors: {\"mix\": Mix({\"web\": 0.7, \"code\": 0.3})}",
    ),
    entry(
        Topic::Variant,
        "Train",
        "The actor that learns.",
        "actors: {\"learner\": Train(loss: [CrossEntropy(of: \"mix\")])}",
    ),
    entry(
        Topic::Variant,
        "Text",
        "Files by pattern, each one document.",
        "from: Text(\"text/**/*.md\")",
    ),
    entry(Topic::Variant, "Folder", "All text files of a folder.", "from: Folder(\"text\")"),
    entry(
        Topic::Variant,
        "Jsonl",
        "Lines of JSON: a corpus, or a file of metrics.",
        "metrics: [Jsonl(\"metrics.jsonl\")]",
    ),
    entry(
        Topic::Variant,
        "Parquet",
        "Rows of Parquet files.",
        "from: Parquet(glob: \"data/*.parquet\", column: \"text\")",
    ),
    entry(
        Topic::Variant,
        "RustSources",
        "Rust sources of the local cargo registry: text that every builder of this \
         program has.",
        "from: RustSources(bytes: \"8MiB\")",
    ),
    entry(Topic::Variant, "Fresh", "Random weights.", "init: Fresh"),
    entry(
        Topic::Variant,
        "CrossEntropy",
        "Mean negative log-likelihood of the next token; in a Graph: the head and the \
         loss.",
        "loss: [CrossEntropy(of: \"text\")]",
    ),
    entry(
        Topic::Variant,
        "Wsd",
        "Warm-up, stable, decay.",
        "lr: Wsd(peak: 2e-3, warmup: \"20 steps\", stable: \"150 steps\", decay: Cosine(to: \
         2e-4, over: \"50 steps\"))",
    ),
    entry(
        Topic::Variant,
        "Constant",
        "One learning rate: `from`, or left out: the one at which the phase before ended.",
        "lr: Constant(from: 2e-5)",
    ),
    entry(
        Topic::Variant,
        "Cosine",
        "Falls along half a cosine: from the peak of a Wsd, or by itself from `from`, left out: \
         from the rate at which the phase before ended.",
        "decay: Cosine(to: 2e-5, over: \"5.5T\")",
    ),
    entry(
        Topic::Variant,
        "Linear",
        "Falls along a line: from the peak of a Wsd, or by itself from `from`, left out: from the \
         rate at which the phase before ended. In a Graph: a matrix.",
        "decay: Linear(to: 0, over: \"500 steps\")",
    ),
    entry(
        Topic::Variant,
        "MuonClip",
        "Muon for matrices, AdamW for the rest, and a cap on attention logits \
         (arXiv:2507.20534).",
        "optimizer: MuonClip(qk_clip: 100)",
    ),
    entry(
        Topic::Variant,
        "AdamW",
        "Adam with decoupled decay (arXiv:1711.05101).",
        "optimizer: AdamW(eps: 1e-8)",
    ),
    entry(Topic::Variant, "Steps", "So many optimizer steps.", "stop: Steps(200)"),
    entry(Topic::Variant, "Tokens", "So many tokens.", "stop: Tokens(\"10M\")"),
    entry(
        Topic::Variant,
        "GPipe",
        "All forward passes, then all backward passes (arXiv:1811.06965).",
        "schedule: GPipe",
    ),
    entry(
        Topic::Variant,
        "OneFOneB",
        "One forward, one backward (arXiv:1806.03377).",
        "schedule: OneFOneB",
    ),
    entry(
        Topic::Variant,
        "Interleaved1F1B",
        "1F1B over several chunks a stage (arXiv:2104.04473).",
        "schedule: Interleaved1F1B(extra_warmup: 1, split_backward: true)",
    ),
    entry(
        Topic::Variant,
        "LoopedBfs",
        "Chunk by chunk, all microbatches of one before the next (arXiv:2211.05953).",
        "mesh: (pp: 2, vpp: 2), schedule: LoopedBfs",
    ),
    entry(
        Topic::Variant,
        "ZbH1",
        "1F1B with weight gradients in the bubbles, at its memory (arXiv:2401.10241).",
        "schedule: ZbH1",
    ),
    entry(
        Topic::Variant,
        "ZbH2",
        "ZbH1 without bubbles, for twice the memory (arXiv:2401.10241).",
        "schedule: ZbH2",
    ),
    entry(
        Topic::Variant,
        "InterleavedZeroBubble",
        "Interleaved 1F1B with weight gradients in the bubbles.",
        "mesh: (pp: 2, vpp: 2), schedule: InterleavedZeroBubble",
    ),
    entry(
        Topic::Variant,
        "ZbV",
        "No bubble at the memory of 1F1B: the first stage has the last chunk too \
         (arXiv:2401.10241). Needs vpp: 2.",
        "mesh: (pp: 2, vpp: 2), schedule: ZbV",
    ),
    entry(
        Topic::Variant,
        "DualPipeV",
        "Forward passes of one way beside backward passes of the other (arXiv:2412.19437). \
         Needs vpp: 2 and 2 * pp microbatches.",
        "mesh: (pp: 2, vpp: 2), schedule: DualPipeV",
    ),
    entry(
        Topic::Variant,
        "VHalf",
        "Half the activations of 1F1B, on the V of ZbV (arXiv:2405.15362). Needs vpp: 2.",
        "mesh: (pp: 4, vpp: 2), schedule: VHalf",
    ),
    entry(
        Topic::Variant,
        "VMin",
        "A third of the activations of 1F1B, for more waiting (arXiv:2405.15362). Needs vpp: 2.",
        "mesh: (pp: 4, vpp: 2), schedule: VMin",
    ),
    entry(
        Topic::Variant,
        "Hybrid",
        "Interleaved 1F1B in pairs with one extra warm-up, and weight gradients apart where that \
         lets the next stage go on; see docs/hybrid.md.",
        "mesh: (pp: 2, vpp: 2), schedule: Hybrid(split_pairs: true)",
    ),
    entry(
        Topic::Variant,
        "Automatic",
        "Weight gradients where stages would wait, for given times and a limit of memory: ZB-1p, or \
         with limit: 2 ZB-2p (arXiv:2401.10241, section 3).",
        "mesh: (pp: 4), schedule: Automatic(forward: 20, input: 19, weight: 10, comm: 1, limit: 2)",
    ),
    entry(
        Topic::Variant,
        "Csv",
        "Orders of a file, a row for each stage and PyTorch's cells between commas; a chunk lives \
         where it is computed. Sends and receives are checked, and the plan's own are used.",
        "schedule: Csv(\"orders.csv\")",
    ),
    entry(
        Topic::Variant,
        "Orders",
        "Orders in place, a row for each stage; what Csv(..) becomes when a job is resolved.",
        "mesh: (pp: 2), schedule: Orders([\"0F0,0F1,0B0,0B1\", \"1F0,1B0,1F1,1B1\"])",
    ),
    entry(
        Topic::Variant,
        "Joined",
        "Weight gradients together with input gradients.",
        "weight_grad: Joined",
    ),
    entry(
        Topic::Variant,
        "Early",
        "Weight gradients right after the input gradient has been sent.",
        "weight_grad: Early",
    ),
    entry(
        Topic::Variant,
        "Late",
        "Weight gradients so many input gradients later.",
        "weight_grad: Late(2)",
    ),
    entry(
        Topic::Variant,
        "Least",
        "As few messages in each channel as the plan can run with, and `slack` more.",
        "credits: Least(slack: 1)",
    ),
    entry(
        Topic::Variant,
        "Fixed",
        "So many messages in each channel; the plan is refused if it would hang with them.",
        "credits: Fixed(2)",
    ),
    entry(
        Topic::Variant,
        "PerEdge",
        "Every channel has a communicator of its own: no order but that of its own messages.",
        "communicators: PerEdge",
    ),
    entry(
        Topic::Variant,
        "PerPair",
        "The channels between two stages share a communicator, in both directions.",
        "communicators: PerPair",
    ),
    entry(
        Topic::Variant,
        "One",
        "All channels between stages share one communicator.",
        "communicators: One",
    ),
    entry(
        Topic::Variant,
        "Owners",
        "Each parameter is updated by one of the ranks that hold it, balanced by work.",
        "zero: Owners",
    ),
    entry(
        Topic::Variant,
        "Stage1",
        "Every rank that holds a parameter updates its share of the rows; one of them runs \
         Newton-Schulz on the whole matrix (ZeRO-1 with distributed Muon, arXiv:2502.16982).",
        "zero: Stage1",
    ),
    entry(
        Topic::Variant,
        "Balanced",
        "Cuts such that the dearest chunk is as cheap as can be.",
        "stages: Balanced(first: [Embed], last: [Norm, Head, Loss])",
    ),
    entry(
        Topic::Variant,
        "Explicit",
        "Cuts by hand, one entry for each chunk.",
        "stages: Explicit([(layers: 2, with: [Embed]), (layers: 2, with: [Norm, Head, \
         Loss])])",
    ),
    entry(Topic::Variant, "Embed", "What stands before the first layer.", "first: [Embed]"),
    entry(Topic::Variant, "Norm", "The norm after the last layer.", "last: [Norm, Head, Loss]"),
    entry(
        Topic::Variant,
        "Head",
        "The projection to the vocabulary, one node with the loss.",
        "last: [Head, Loss]",
    ),
    entry(Topic::Variant, "Loss", "The loss.", "last: [Head, Loss]"),
    entry(
        Topic::Variant,
        "Embedding",
        "Rows of a table by token.",
        "op: Embedding(vocab: 4096, width: 256)",
    ),
    entry(
        Topic::Variant,
        "RmsNorm",
        "Divides by the root mean square.",
        "op: RmsNorm(width: 256, eps: 1e-6)",
    ),
    entry(Topic::Variant, "Split", "Parts of a width.", "op: Split(widths: [64, 16])"),
    entry(
        Topic::Variant,
        "MlaAttention",
        "Causal attention with latent keys and values.",
        "op: MlaAttention(heads: 4, nope: 32, rope: 16, value: 32, rope_theta: 50000)",
    ),
    entry(Topic::Variant, "SwiGlu", "silu(gate) times up.", "op: SwiGlu(width: 768)"),
    entry(
        Topic::Variant,
        "Router",
        "Chooses experts for each token.",
        "op: Router(width: 256, experts: 16, experts_per_token: 4)",
    ),
    entry(
        Topic::Variant,
        "Dispatch",
        "Sorts rows by expert.",
        "op: Dispatch(width: 256, experts: 16, experts_per_token: 4)",
    ),
    entry(
        Topic::Variant,
        "GroupedLinear",
        "One matrix for each expert.",
        "op: GroupedLinear(experts: 16, input: 256, output: 128)",
    ),
    entry(
        Topic::Variant,
        "Weigh",
        "Scales each routed row by its token's router weight.",
        "op: Weigh(width: 256)",
    ),
    entry(
        Topic::Variant,
        "Combine",
        "Sums each token's weighed rows.",
        "op: Combine(width: 256, experts: 16, experts_per_token: 4)",
    ),
    entry(Topic::Variant, "Add", "Sums its inputs.", "op: Add(width: 256)"),
];
