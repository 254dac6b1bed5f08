//! The fields of plans and models.

use super::{Entry, Topic, entry};

/// The table.
pub const SHAPES: &[Entry] = &[
    entry(
        Topic::Field,
        "mesh",
        "Ranks along the axes pp, ep and dp; vpp chunks on each stage.",
        "mesh: (pp: 2, vpp: 2, ep: 2, dp: 1)",
    ),
    entry(Topic::Field, "pp", "Pipeline stages.", "pp: 2"),
    entry(
        Topic::Field,
        "vpp",
        "Virtual stages: chunks of the model that each stage holds.",
        "vpp: 2",
    ),
    entry(
        Topic::Field,
        "ep",
        "Expert ranks, over which the routed experts of a layer are spread.",
        "ep: 2",
    ),
    entry(Topic::Field, "dp", "Replicas of the whole model.", "dp: 2"),
    entry(
        Topic::Field,
        "microbatch",
        "Sequences that pass the pipeline together.",
        "microbatch: 1",
    ),
    entry(
        Topic::Field,
        "stages",
        "Where the model is cut: Balanced or Explicit.",
        "stages: Balanced(first: [Embed], last: [Norm, Head, Loss])",
    ),
    entry(Topic::Field, "first", "Parts that the first chunk keeps.", "first: [Embed]"),
    entry(Topic::Field, "last", "Parts that the last chunk keeps.", "last: [Norm, Head, Loss]"),
    entry(Topic::Field, "with", "Parts outside the layers that a chunk holds.", "with: [Embed]"),
    entry(
        Topic::Field,
        "schedule",
        "Order of work of each stage: GPipe, OneFOneB, Interleaved1F1B, LoopedBfs, ZbH1, ZbH2, \
         InterleavedZeroBubble, ZbV, DualPipeV, VHalf, VMin, Hybrid, Automatic; or written out, \
         Csv or Orders.",
        "schedule: Interleaved1F1B(extra_warmup: 1)",
    ),
    entry(
        Topic::Field,
        "extra_warmup",
        "Forward passes more than needed before the first backward pass.",
        "extra_warmup: 1",
    ),
    entry(
        Topic::Field,
        "paired",
        "Whether forward and backward passes of the steady phase are pairs, which needs \
         extra_warmup: 1.",
        "paired: true",
    ),
    entry(
        Topic::Field,
        "split_pairs",
        "Whether weight gradients leave the pairs of the hybrid too.",
        "split_pairs: true",
    ),
    entry(
        Topic::Field,
        "forward",
        "Time of a forward pass, in any unit: whole numbers.",
        "forward: 18522",
    ),
    entry(Topic::Field, "weight", "Time of the weights' gradients.", "weight: 9337"),
    entry(Topic::Field, "comm", "Time of the way from one stage to the next.", "comm: 601"),
    entry(
        Topic::Field,
        "freed",
        "Part of a microbatch's activations that the input's gradient frees, in any unit.",
        "freed: 42",
    ),
    entry(
        Topic::Field,
        "kept",
        "Part of them that is kept for the weights' gradients.",
        "kept: 32",
    ),
    entry(
        Topic::Field,
        "limit",
        "A stage has room for the activations of this times pp microbatches; 1F1B needs 1.",
        "limit: 2",
    ),
    entry(
        Topic::Field,
        "split_backward",
        "Whether weight gradients are computed apart from input gradients.",
        "split_backward: true",
    ),
    entry(
        Topic::Field,
        "group",
        "Microbatches of one round of interleaved 1F1B; as many as stages if left out.",
        "group: 2",
    ),
    entry(
        Topic::Field,
        "weight_grad",
        "When weight gradients are computed: Joined, Early or Late(..).",
        "weight_grad: Late(2)",
    ),
    entry(
        Topic::Field,
        "credits",
        "Messages that each channel may hold: Least(..), the default, or Fixed(..). A sender \
         waits while its channel is full; a plan that would hang is refused.",
        "credits: Least(slack: 1)",
    ),
    entry(
        Topic::Field,
        "slack",
        "Buffers of each channel beyond the fewest that the plan can run with; 1.",
        "slack: 1",
    ),
    entry(
        Topic::Field,
        "communicators",
        "Which channels share a communicator of NCCL, whose operations all members must issue in \
         one order: PerEdge, PerPair or One. `check` proves the plan for it; actors of one process \
         need none.",
        "communicators: PerEdge",
    ),
    entry(
        Topic::Field,
        "zero",
        "Who keeps the F32 masters and the optimizer states of what several ranks hold: Owners or \
         Stage1. Both keep each value once and give the same bits, so a run may go on under either.",
        "zero: Stage1",
    ),
    entry(
        Topic::Field,
        "layers",
        "Layers in all, or in one chunk of an explicit cut.",
        "layers: 4",
    ),
    entry(
        Topic::Field,
        "dense_layers",
        "How many of the first layers have no experts.",
        "dense_layers: 1",
    ),
    entry(Topic::Field, "hidden", "Width of a token between layers.", "hidden: 256"),
    entry(
        Topic::Field,
        "dense_width",
        "Inner width of a layer without experts.",
        "dense_width: 768",
    ),
    entry(Topic::Field, "vocab", "Number of different tokens.", "vocab: 4096"),
    entry(Topic::Field, "heads", "Attention heads.", "heads: 4"),
    entry(
        Topic::Field,
        "q_rank",
        "Rank of the queries; left out: one full matrix makes them.",
        "q_rank: 96",
    ),
    entry(Topic::Field, "kv_rank", "Rank that keys and values share.", "kv_rank: 64"),
    entry(Topic::Field, "nope", "Width of the part of a head without positions.", "nope: 32"),
    entry(Topic::Field, "rope", "Width of the rotated part of a head.", "rope: 16"),
    entry(Topic::Field, "value", "Width of a head's values.", "value: 32"),
    entry(Topic::Field, "experts", "Routed experts of a layer.", "experts: 16"),
    entry(
        Topic::Field,
        "experts_per_token",
        "Routed experts that compute a token.",
        "experts_per_token: 4",
    ),
    entry(Topic::Field, "shared_experts", "Experts that compute every token.", "shared_experts: 1"),
    entry(Topic::Field, "expert_width", "Inner width of an expert.", "expert_width: 128"),
    entry(Topic::Field, "groups", "Groups that the routed experts are chosen from.", "groups: 1"),
    entry(
        Topic::Field,
        "groups_per_token",
        "Groups that a token may choose from.",
        "groups_per_token: 1",
    ),
    entry(Topic::Field, "scaling", "Factor of the routed experts' sum.", "scaling: 2.0"),
    entry(Topic::Field, "rope_theta", "Base of the rotation's wavelengths.", "rope_theta: 50000.0"),
    entry(
        Topic::Field,
        "yarn",
        "Stretching of the rotation beyond the trained context (arXiv:2309.00071): of a model, or \
         of a learner or one of its phases, where it goes before the model's. No weight changes; \
         the export says that of the last phase.",
        "yarn: (factor: 32, original: 4096, beta_fast: 1, beta_slow: 1, mscale: 1, \
         mscale_all_dim: 1)",
    ),
    entry(Topic::Field, "factor", "How many times longer the context becomes.", "factor: 32"),
    entry(Topic::Field, "original", "Tokens of the context that was trained.", "original: 4096"),
    entry(
        Topic::Field,
        "beta_fast",
        "Turns within the context above which a wavelength stays.",
        "beta_fast: 32",
    ),
    entry(
        Topic::Field,
        "beta_slow",
        "Turns within the context below which a wavelength is stretched.",
        "beta_slow: 1",
    ),
    entry(
        Topic::Field,
        "mscale",
        "Weight of the attention's correction for its temperature.",
        "mscale: 1",
    ),
    entry(
        Topic::Field,
        "mscale_all_dim",
        "The same for the parts of a head without positions.",
        "mscale_all_dim: 1",
    ),
    entry(Topic::Field, "norm_eps", "Added to the mean square in the norms.", "norm_eps: 1e-6"),
    entry(
        Topic::Field,
        "init_std",
        "Standard deviation of all matrices before the first step.",
        "init_std: 0.02",
    ),
    entry(
        Topic::Field,
        "input",
        "Names of the dims of a microbatch in a Graph, or the width that a node reads; in Automatic, \
         the time of the input's gradient.",
        "input: (tokens: \"t\")",
    ),
    entry(
        Topic::Field,
        "tokens",
        "Tokens that a phase trains on, rounded up to whole steps; in a Graph: the letter of the \
         dim that tokens have.",
        "tokens: \"400G\"",
    ),
    entry(Topic::Field, "output", "Width that a node makes.", "output: 192"),
    entry(
        Topic::Field,
        "blocks",
        "Runs of nodes that Repeat names.",
        "blocks: {\"dense\": [(op: RmsNorm(width: 256))]}",
    ),
    entry(Topic::Field, "nodes", "The model from top to bottom.", "nodes: [Repeat(\"dense\", 1)]"),
    entry(Topic::Field, "op", "What a node computes.", "op: RmsNorm(width: 256)"),
    entry(Topic::Field, "width", "Width of a token.", "width: 256"),
    entry(Topic::Field, "widths", "Widths of the parts that Split makes.", "widths: [64, 16]"),
    entry(
        Topic::Field,
        "chunk",
        "Columns of the vocabulary that are in memory at once.",
        "chunk: 4096",
    ),
];
