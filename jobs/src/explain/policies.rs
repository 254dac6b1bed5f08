//! What is done with activations between the passes, and what travels meanwhile.

use super::{Entry, Topic, entry};

/// The table.
pub const POLICIES: &[Entry] = &[
    entry(
        Topic::Field,
        "overlap",
        "What travels while something else is computed: rows to the experts and back \
         (ExpertAllToAll), weight gradients as soon as they are complete (GradReduce).",
        "overlap: [ExpertAllToAll, GradReduce]",
    ),
    entry(
        Topic::Field,
        "recompute",
        "Nodes that run again in the backward pass, so that their outputs need not be kept; the \
         bits stay the same.",
        "recompute: [RmsNorm, SwiGlu, MlaUpProj, MoeDownProj]",
    ),
    entry(
        Topic::Field,
        "store",
        "What is stored in FP8 between forward and backward pass. It changes numbers, a little.",
        "store: Fp8(tensors: [MoeUpInput, SwiGluInput])",
    ),
    entry(
        Topic::Field,
        "tensors",
        "Tensors that are stored: MoeUpInput, SwiGluInput, SwiGluOutput, MoeDownOutput, \
         NormOutput, Latent, AttentionInput, AttentionOutput, Residual.",
        "tensors: [MoeUpInput, SwiGluInput]",
    ),
    entry(Topic::Field, "tile", "Rows and columns that share a scale: (1, 128).", "tile: (1, 128)"),
    entry(
        Topic::Field,
        "offload",
        "What goes to the host between forward and backward pass, while others compute.",
        "offload: Activations(prefetch: 1)",
    ),
    entry(
        Topic::Field,
        "prefetch",
        "How many steps of a stage before its backward pass a microbatch is fetched; 1.",
        "prefetch: 1",
    ),
    entry(
        Topic::Field,
        "stored",
        "Whether what is stored in FP8 goes to the host too; false.",
        "stored: true",
    ),
    entry(
        Topic::Variant,
        "ExpertAllToAll",
        "Rows travel to the experts and back while another microbatch computes: forward and \
         backward passes of different microbatches are paired, layer by layer.",
        "overlap: [ExpertAllToAll]",
    ),
    entry(
        Topic::Variant,
        "GradReduce",
        "Weight gradients leave for the ranks that update them behind the last microbatch of their \
         segment, and not when the program is done.",
        "overlap: [GradReduce]",
    ),
    entry(
        Topic::Variant,
        "MlaUpProj",
        "The up-projections of latent attention: queries, keys and values.",
        "recompute: [MlaUpProj]",
    ),
    entry(
        Topic::Variant,
        "MoeDownProj",
        "The last matrix of routed experts.",
        "recompute: [MoeDownProj]",
    ),
    entry(
        Topic::Variant,
        "Fp8",
        "E4M3 with one F32 scale for 128 numbers of a row; storage only, never computed with.",
        "store: Fp8(tensors: [MoeUpInput])",
    ),
    entry(
        Topic::Variant,
        "MoeUpInput",
        "Rows sorted by expert, which the routed up-projections read.",
        "store: Fp8(tensors: [MoeUpInput])",
    ),
    entry(
        Topic::Variant,
        "SwiGluInput",
        "Gate and up of dense layers, shared and routed experts.",
        "store: Fp8(tensors: [SwiGluInput])",
    ),
    entry(
        Topic::Variant,
        "SwiGluOutput",
        "What down-projections read.",
        "store: Fp8(tensors: [SwiGluOutput])",
    ),
    entry(
        Topic::Variant,
        "MoeDownOutput",
        "What routed experts give, row by row.",
        "store: Fp8(tensors: [MoeDownOutput])",
    ),
    entry(Topic::Variant, "NormOutput", "Outputs of norms.", "store: Fp8(tensors: [NormOutput])"),
    entry(
        Topic::Variant,
        "Latent",
        "Low-rank projections of latent attention.",
        "store: Fp8(tensors: [Latent])",
    ),
    entry(
        Topic::Variant,
        "AttentionInput",
        "Queries, keys and values.",
        "store: Fp8(tensors: [AttentionInput])",
    ),
    entry(
        Topic::Variant,
        "AttentionOutput",
        "What the heads of an attention give.",
        "store: Fp8(tensors: [AttentionOutput])",
    ),
    entry(
        Topic::Variant,
        "Residual",
        "The stream that runs through all layers.",
        "store: Fp8(tensors: [Residual])",
    ),
    entry(
        Topic::Variant,
        "Activations",
        "All that is kept for the backward pass goes to the host and comes back in time.",
        "offload: Activations(prefetch: 1)",
    ),
    entry(Topic::Variant, "Host", "The memory of the host.", "offload: Activations(to: Host)"),
    entry(Topic::Variant, "Plain", "Tensors are kept as they were made.", "store: Plain"),
    entry(Topic::Variant, "Nothing", "What is kept stays on its device.", "offload: Nothing"),
    entry(
        Topic::Field,
        "offload_states",
        "Part of the F32 masters and optimizer states of each rank, from 0 to 1, that lives on the \
         host and crosses its bus for each update.",
        "offload_states: 1.0",
    ),
];
