//! The codes of mistakes.

use super::{Entry, Topic, entry};

/// The table.
pub const CODES: &[Entry] = &[
    entry(
        Topic::Code,
        "S001",
        "The text is not RON. RON knows names, numbers, \"strings\", [lists], {\"maps\": \
         1}, records (name: value) and Variants(..).",
        "name: \"run\", stop: Steps(100)",
    ),
    entry(
        Topic::Code,
        "S002",
        "Entries are separated by commas; a comma behind the last one is welcome.",
        "seed: 1, name: \"run\",",
    ),
    entry(
        Topic::Code,
        "S003",
        "Comments start with // and end with the line, or stand between /* and */.",
        "seed: 1 // the key of all random numbers\n",
    ),
    entry(
        Topic::Code,
        "S004",
        "RON has no units, so a number with a unit is a string.",
        "batch: \"64Mi\"",
    ),
    entry(
        Topic::Code,
        "S005",
        "Records, whose names are fixed, use ( ) and names without quotes. Maps, whose \
         names are yours, use { } and names in quotes.",
        "plans: {\"mine\": (mesh: (pp: 2))}",
    ),
    entry(
        Topic::Code,
        "S006",
        "Every bracket, quote and comment that is opened has to be closed.",
        "metrics: [Jsonl(\"m.jsonl\")]",
    ),
    entry(
        Topic::Code,
        "S007",
        "A variant's fields stand directly in its parentheses.",
        "optimizer: MuonClip(momentum: 0.95)",
    ),
    entry(Topic::Code, "S008", "A field or an entry of a map may stand only once.", "seed: 1"),
    entry(
        Topic::Code,
        "S009",
        "Strings use double quotes, and \\\\ \\\" \\n \\t \\u{1F980} inside; raw strings look \
         like r\"..\".",
        "name: \"run\"",
    ),
    entry(
        Topic::Code,
        "S010",
        "The value is of another kind than the field takes.",
        "lr: Wsd(peak: 2e-4)",
    ),
    entry(Topic::Code, "S011", "A field that has no default is missing.", "stop: Steps(100)"),
    entry(
        Topic::Code,
        "S012",
        "The record has no field of this name. Nothing unknown is ignored, at any \
         depth.",
        "mesh: (pp: 2, ep: 2)",
    ),
    entry(Topic::Code, "S013", "There is no variant of this name here.", "schedule: OneFOneB"),
    entry(
        Topic::Code,
        "S014",
        "A quantity has a unit that it cannot have. Counts take K M B T Ki Mi Gi, bytes \
         KiB MiB GiB KB MB GB, times s min h d, parts of a run steps or tokens.",
        "bytes: \"8MiB\"",
    ),
    entry(Topic::Code, "S015", "The number is outside its range.", "pp: 2"),
    entry(
        Topic::Code,
        "S020",
        "A file that the job or the command names cannot be read. Paths of included \
         files are relative to the file that names them.",
        "model: File(\"model.ron\")",
    ),
    entry(
        Topic::Code,
        "S021",
        "Files (`base`, `File`) or plans (`like`) refer to each other in a circle; the \
         message prints it.",
        "like: \"main\"",
    ),
    entry(
        Topic::Code,
        "S022",
        "There is no library job or preset of this name; `troupe explain` lists them.",
        "model: Preset(\"k2-nano\")",
    ),
    entry(Topic::Code, "S023", "The job has no plan of this name.", "plan: Named(\"main\")"),
    entry(
        Topic::Code,
        "S024",
        "`--set path=value` takes names of fields, separated by points, and a value as \
         a job file would write it. `plan.` means the plan that is run.",
        "pp: 4",
    ),
    entry(
        Topic::Code,
        "S025",
        "A saved plan is what somebody looked at. It runs only while the files, presets and \
         library jobs that it was made of are what they were, and only as it was saved.",
        "plan: \"5d0c\"",
    ),
    entry(
        Topic::Code,
        "S026",
        "No phase of the job has this name; `troupe check JOB` lists them.",
        "phases: [(name: \"main\", tokens: \"1M\")]",
    ),
    entry(
        Topic::Code,
        "J201",
        "A job has exactly one actor that learns.",
        "actors: {\"learner\": Train()}",
    ),
    entry(
        Topic::Code,
        "J202",
        "An actor reads another one by its name in `actors`.",
        "loss: [CrossEntropy(of: \"mix\")]",
    ),
    entry(
        Topic::Code,
        "J203",
        "A mix is made of corpora, and a loss reads a corpus or a mix.",
        "loss: [CrossEntropy(of: \"mix\")]",
    ),
    entry(
        Topic::Code,
        "J204",
        "A batch is counted in tokens and has to be whole sequences of `context` \
         tokens.",
        "batch: 4096, context: 256",
    ),
    entry(
        Topic::Code,
        "J205",
        "The tokenizer makes tokens that the model's embedding has no row for.",
        "tokenizer: Bpe(vocab: 4096)",
    ),
    entry(
        Topic::Code,
        "J206",
        "The learning rate warms up, stays, then decays: `stable` is where the peak \
         ends, counted from the start of the run. Constant, Cosine and Linear begin at `from`, \
         which only a phase after another may leave out.",
        "lr: Wsd(peak: 2e-3, warmup: \"20 steps\", stable: \"150 steps\", decay: Linear(to: \
         0, over: \"50 steps\"))",
    ),
    entry(Topic::Code, "J207", "The number has to be above zero.", "batch: 4096"),
    entry(
        Topic::Code,
        "J209",
        "A plan has more ranks, pp * ep * dp, than its cluster has GPUs.",
        "mesh: (pp: 16, ep: 16)",
    ),
    entry(
        Topic::Code,
        "J208",
        "These settings do not go together.",
        "loss: [CrossEntropy(of: \"mix\")]",
    ),
    entry(
        Topic::Code,
        "M101",
        "A model needs nodes: at least an Embedding and a CrossEntropy.",
        "nodes: [(op: Embedding(vocab: 257, width: 64))]",
    ),
    entry(Topic::Code, "M102", "The model is longer than any plan can hold.", "layers: 61"),
    entry(
        Topic::Code,
        "M103",
        "`Repeat` names a block that `blocks` does not have.",
        "nodes: [Repeat(\"moe\", 3)]",
    ),
    entry(
        Topic::Code,
        "M104",
        "Nodes are named like their parameters, so no two may have one name.",
        "name: \"norm\"",
    ),
    entry(
        Topic::Code,
        "M105",
        "`tokens`, `targets` and `in` have a meaning of their own.",
        "from: [\"in\"]",
    ),
    entry(Topic::Code, "M106", "A node reads something that does not exist.", "from: [\"norm\"]"),
    entry(Topic::Code, "M107", "Nodes read only nodes above them.", "from: [\"norm\"]"),
    entry(
        Topic::Code,
        "M108",
        "The node that is read has fewer outputs; they are counted from 0.",
        "from: [\"split.1\"]",
    ),
    entry(
        Topic::Code,
        "M109",
        "`in` is what enters a block, so only nodes of a block have it.",
        "from: [\"in\"]",
    ),
    entry(
        Topic::Code,
        "M110",
        "The first node has no node before it and must say what it reads.",
        "from: [\"tokens\"]",
    ),
    entry(
        Topic::Code,
        "M111",
        "Two neighbouring nodes do not fit: the message says which shapes meet.",
        "op: RmsNorm(width: 256)",
    ),
    entry(
        Topic::Code,
        "M112",
        "An output that nobody reads would have no gradient.",
        "from: [\"split.0\", \"split.1\"]",
    ),
    entry(
        Topic::Code,
        "M113",
        "Training needs one CrossEntropy, as the last node.",
        "op: CrossEntropy(width: 256, vocab: 4096)",
    ),
    entry(
        Topic::Code,
        "M114",
        "Routed rows go from a Dispatch through experts to a Combine, and nowhere else.",
        "op: Dispatch(width: 256, experts: 16, experts_per_token: 4)",
    ),
    entry(
        Topic::Code,
        "M115",
        "QK-Clip scales the two Linears that make an attention's queries and keys, so \
         they must stand right before it.",
        "op: Linear(input: 96, output: 192)",
    ),
    entry(
        Topic::Code,
        "M116",
        "A number of `Decoder(..)` or of a node is outside its range.",
        "experts_per_token: 4",
    ),
    entry(
        Topic::Code,
        "P100",
        "A degree of the mesh is zero or beyond any machine.",
        "mesh: (pp: 2, ep: 2)",
    ),
    entry(
        Topic::Code,
        "P101",
        "A pipeline is cut only where one tensor crosses, and the model has fewer such \
         places than the plan has chunks (pp * vpp).",
        "mesh: (pp: 2, vpp: 2)",
    ),
    entry(
        Topic::Code,
        "P102",
        "GPipe, 1F1B and ZbH1 and ZbH2 know one chunk a stage, ZbV and DualPipeV two.",
        "mesh: (pp: 4), schedule: OneFOneB",
    ),
    entry(
        Topic::Code,
        "P103",
        "Interleaved 1F1B works through its microbatches in groups.",
        "schedule: Interleaved1F1B(group: 2)",
    ),
    entry(
        Topic::Code,
        "P104",
        "The experts of a layer are spread evenly over the expert ranks.",
        "mesh: (ep: 4)",
    ),
    entry(
        Topic::Code,
        "P105",
        "The sequences of a step are spread evenly over all data ranks, dp * ep, in \
         units of `microbatch`.",
        "microbatch: 2",
    ),
    entry(Topic::Code, "P106", "Lanes are spread evenly over the data ranks, dp * ep.", "lanes: 4"),
    entry(Topic::Code, "P107", "The units of a step fill the lanes evenly.", "lanes: 4"),
    entry(
        Topic::Code,
        "P108",
        "An explicit cut has one entry for each chunk, pp * vpp in all.",
        "stages: Explicit([(layers: 2), (layers: 2)])",
    ),
    entry(
        Topic::Code,
        "P109",
        "An explicit cut holds every layer and part once, in the order of the model.",
        "stages: Explicit([(layers: 2, with: [Embed]), (layers: 2, with: [Norm, Head, \
         Loss])])",
    ),
    entry(
        Topic::Code,
        "P110",
        "The model can be cut only where one tensor crosses.",
        "stages: Balanced",
    ),
    entry(
        Topic::Code,
        "P111",
        "A step of so many microbatches is too long to plan.",
        "microbatch: 4",
    ),
    entry(
        Topic::Code,
        "P112",
        "DualPipeV fills both ways of its V, so it needs 2 * pp microbatches or more.",
        "mesh: (pp: 2, vpp: 2), schedule: DualPipeV",
    ),
    entry(
        Topic::Code,
        "P113",
        "A forward pass cannot run in one with the backward pass that waits for its output, which \
         is the last stage's first pair without an extra forward pass in the warm-up.",
        "mesh: (pp: 2, vpp: 2), schedule: Interleaved1F1B(extra_warmup: 1, paired: true)",
    ),
    entry(
        Topic::Code,
        "P114",
        "Written orders have a row for each stage, the same number of chunks in each, and every \
         microbatch of a rank; plan and batch have to agree with that.",
        "mesh: (pp: 2), schedule: Csv(\"orders.csv\")",
    ),
    entry(
        Topic::Code,
        "P115",
        "Written orders wait for themselves whatever the credits; the message tells how.",
        "schedule: Csv(\"orders.csv\")",
    ),
    entry(
        Topic::Code,
        "P120",
        "An order breaks the law: everything once, and nothing before what it needs.",
        "schedule: OneFOneB",
    ),
    entry(
        Topic::Code,
        "P121",
        "A program sends what nobody receives, or the reverse.",
        "schedule: OneFOneB",
    ),
    entry(
        Topic::Code,
        "P122",
        "The plan would hang for some timing; the message tells how.",
        "schedule: OneFOneB",
    ),
    entry(
        Topic::Code,
        "P123",
        "Channels need a buffer each: actors put what they send into one and go on. Without any, \
         as unbuffered MPI sends, only bare orders can be checked: `troupe schedule --check \
         orders.csv --credits 0`.",
        "credits: Fixed(1)",
    ),
    entry(
        Topic::Code,
        "P124",
        "FP8 storage has one F32 scale for each 128 numbers of a row, as Kimi K2 has it; there is \
         no other tile.",
        "store: Fp8(tensors: [MoeUpInput], tile: (1, 128))",
    ),
    entry(
        Topic::Code,
        "P125",
        "Tensors that are computed again are not kept, so they cannot be stored too.",
        "recompute: [SwiGlu], store: Fp8(tensors: [MoeUpInput])",
    ),
    entry(
        Topic::Code,
        "P126",
        "A part of the optimizer's states is a number from 0, none, to 1, all.",
        "offload_states: 0.5",
    ),
];
