//! What can be wrong with a model graph, in the words of the person who wrote it.

/// One mistake in a model; a model is refused with all of them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// The list has no node at all, or repeats nothing.
    #[error("the model has no node; write at least an Embedding and a CrossEntropy")]
    Empty,
    /// More nodes than any plan could hold.
    #[error("the model has {got} nodes, more than the {limit} a plan can hold")]
    TooLong {
        /// Nodes asked for.
        got: usize,
        /// Nodes allowed.
        limit: usize,
    },
    /// More weights than any plan could hold.
    #[error("the model has {got} weights, more than the {limit} a plan can hold")]
    TooManyWeights {
        /// Weights asked for.
        got: usize,
        /// Weights allowed.
        limit: usize,
    },
    /// A repeat names a block that is not there.
    #[error("`Repeat(\"{block}\", ..)` names no block; there is {}", list(known))]
    UnknownBlock {
        /// The name used.
        block: String,
        /// The blocks there are.
        known: Vec<String>,
    },
    /// Two nodes would have the same parameters' names.
    #[error("two nodes are named `{name}`")]
    DuplicateName {
        /// The whole name.
        name: String,
    },
    /// A node is named like something that sources already mean.
    #[error(
        "no node may be named `{name}`: `tokens`, `targets` and `in` have a meaning of their own"
    )]
    ReservedName {
        /// The whole name.
        name: String,
    },
    /// A source names nothing.
    #[error("node `{node}` reads `{from}`, which does not exist{}", suggestion(near))]
    UnknownSource {
        /// The reader.
        node: String,
        /// What it asks for.
        from: String,
        /// A name that is nearly the same.
        near: Option<String>,
    },
    /// A source names the node itself or a later one, so the graph would have a cycle.
    #[error("node `{node}` reads `{from}`, which comes only after it; edges run downwards")]
    ForwardReference {
        /// The reader.
        node: String,
        /// What it asks for.
        from: String,
    },
    /// A source names an output that its node does not have.
    #[error(
        "node `{node}` reads `{from}`, but outputs are counted from 0 and there are only {outputs}"
    )]
    NoOutput {
        /// The reader.
        node: String,
        /// What it asks for.
        from: String,
        /// Outputs there are.
        outputs: usize,
    },
    /// `in` was used where no block is.
    #[error("node `{node}` reads `in`, which only nodes of a block have")]
    NoBlock {
        /// The reader.
        node: String,
    },
    /// The first node reads "the node before".
    #[error("node `{node}` has no node before it to read; write `from`")]
    NothingBefore {
        /// The reader.
        node: String,
    },
    /// Two neighbouring nodes do not fit.
    ///
    /// Shown as ``node `up` does not fit its input: Linear expects [t, d=64], got [128, 32]``.
    #[error("node `{node}` does not fit its input: {source}")]
    Shape {
        /// The reader.
        node: String,
        /// What its operator says.
        source: ops::ShapeError,
    },
    /// Activations that nobody reads would have no gradient.
    #[error("nobody reads output {port} of node `{node}`")]
    Unread {
        /// The maker.
        node: String,
        /// Which output.
        port: usize,
    },
    /// Training needs exactly one loss, at the end.
    #[error("the model needs one CrossEntropy, as its last node; it has {got}")]
    Loss {
        /// How many there are, or where the one stands.
        got: String,
    },
    /// Routed rows go another way than dispatch, experts, combine.
    #[error("routed rows of node `{node}` {what}")]
    Routing {
        /// The node where they go wrong.
        node: String,
        /// How.
        what: &'static str,
    },
    /// QK-Clip cannot find the weights that make an attention's queries or keys.
    #[error("attention `{node}` reads its {what} from `{from}`; QK-Clip needs a Linear there")]
    NoClip {
        /// The attention.
        node: String,
        /// `queries` or `keys and values`.
        what: &'static str,
        /// Where they come from.
        from: String,
    },
    /// A size of a node is zero, or so large that products of sizes could not be counted.
    #[error("`{field}` of node `{node}` is {got}; expected 1 to {limit}")]
    Size {
        /// The node.
        node: String,
        /// Name of the field.
        field: &'static str,
        /// Its value.
        got: usize,
        /// The greatest it may be.
        limit: usize,
    },
    /// A field of `Decoder(..)` is out of its range.
    #[error("`{field}` is {got}; expected {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        got: String,
        /// Its range.
        expected: String,
    },
}

impl ModelError {
    /// Stable code, for `explain` and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            ModelError::Empty => "M101",
            ModelError::TooLong { .. } | ModelError::TooManyWeights { .. } => "M102",
            ModelError::UnknownBlock { .. } => "M103",
            ModelError::DuplicateName { .. } => "M104",
            ModelError::ReservedName { .. } => "M105",
            ModelError::UnknownSource { .. } => "M106",
            ModelError::ForwardReference { .. } => "M107",
            ModelError::NoOutput { .. } => "M108",
            ModelError::NoBlock { .. } => "M109",
            ModelError::NothingBefore { .. } => "M110",
            ModelError::Shape { .. } => "M111",
            ModelError::Unread { .. } => "M112",
            ModelError::Loss { .. } => "M113",
            ModelError::Routing { .. } => "M114",
            ModelError::NoClip { .. } => "M115",
            ModelError::Size { .. } | ModelError::Field { .. } => "M116",
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn suggestion(near: &Option<String>) -> String {
    near.as_ref().map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}
