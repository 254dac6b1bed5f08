//! Local tensor operators: the shapes, values and gradients of one node of the model graph.
//!
//! An operator never communicates and never knows which rank it runs on.
//! Adding one means one file in this folder and one line in the `operators!` list below;
//! job files can name it as soon as that line exists.
//!
//! Dimension letters, used as suffixes of tensor names all over the workspace:
//! `t` tokens, `s` sequence, `d` width, `h` heads, `c` head width, `f` expert width,
//! `v` vocabulary, `e` experts, `l` experts held by this rank, `k` experts per token,
//! `r` routed rows held by this rank.
//!
//! Values are computed in f32 whatever the format of the inputs, and rounded once, when an
//! output is written: that is what "BF16 with F32 accumulation" means here.

mod add;
mod combine;
mod cross_entropy;
mod dispatch;
mod embedding;
mod floats;
#[cfg(test)]
mod grad_check;
mod grouped_linear;
mod init;
mod keeps;
mod linear;
mod mla_attention;
mod on_gpu;
pub mod optim;
mod place;
pub mod ready;
mod rms_norm;
mod router;
mod rows;
mod shape;
mod split;
mod stored;
mod swiglu;
mod tensor;
mod weigh;
mod yarn;

use serde::{Deserialize, Serialize};

pub use crate::{
    add::Add,
    combine::Combine,
    cross_entropy::CrossEntropy,
    dispatch::Dispatch,
    embedding::Embedding,
    floats::{Floats, OnGpu, SquaresOf},
    grouped_linear::GroupedLinear,
    keeps::{Fresh, Keeps, Kept},
    linear::Linear,
    mla_attention::MlaAttention,
    place::Place,
    rms_norm::RmsNorm,
    router::Router,
    split::Split,
    stored::{Stored, stored_bytes},
    swiglu::SwiGlu,
    tensor::{DType, Tensor},
    weigh::Weigh,
    yarn::Yarn,
};

/// One node's mathematics, split the way pipeline schedules need it.
///
/// The two halves of the backward pass are separate methods because a schedule may run
/// them at different times: the previous stage waits for the first, nobody for the second.
pub trait Operator {
    /// Returns the shapes of the outputs for the given inputs.
    ///
    /// This is the only place where the shapes of this operator are checked.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] if the inputs do not have the widths the operator was built for.
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, ShapeError>;

    /// The weights, in the order in which all methods take and return them.
    ///
    /// Most operators have none.
    fn weights(&self) -> Vec<WeightSpec> {
        Vec::new()
    }

    /// What [`forward`](Self::forward) keeps, tensor by tensor, known before there is any.
    fn keeps(&self) -> Keeps;

    /// `F`: returns the outputs and what the backward halves will need.
    fn forward(&self, at: &Context, w: &[Tensor], x: &[Tensor]) -> Forward;

    /// `I`: returns the gradients of the inputs, given those of the outputs.
    ///
    /// `saved` is [`Saved::input`] of the forward pass. Inputs without a gradient (tokens,
    /// choices, counts) give `None`. `dy` has one gradient for each output that carries floats,
    /// in order; what stands in the place of an output of whole numbers is not read.
    fn backward_input(
        &self,
        at: &Context,
        w: &[Tensor],
        saved: &[Tensor],
        dy: &[Tensor],
    ) -> Vec<Option<Tensor>>;

    /// `W`: adds the gradients of the weights to `dw`, one f32 buffer per weight, with room for all
    /// of them.
    ///
    /// A buffer without numbers counts as zeros; it gets all of them, or stays empty if its weight
    /// took part in nothing.
    ///
    /// `saved` is [`Saved::weight`] of the forward pass. Does nothing if there is no weight.
    fn backward_weight(
        &self,
        _at: &Context,
        _w: &[Tensor],
        _saved: &[Tensor],
        _dy: &[Tensor],
        _dw: &mut [Floats],
    ) {
    }

    /// Work and bytes of the three parts for `t` tokens (or rows) in sequences of `s`.
    fn cost(&self, t: usize, s: usize) -> Cost;
}

/// What every call of one microbatch has in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Context {
    /// Tokens of one sequence, `s`; the `t` tokens of a microbatch are whole sequences.
    pub sequence: usize,
    /// Format in which activations and their gradients are written: F32 or BF16.
    pub dtype: DType,
    /// Factor of the loss gradient: one over the tokens of the whole step.
    pub loss_scale: f32,
}

/// What `F` gives back.
#[derive(Debug)]
pub struct Forward {
    /// The output tensors, in the order of [`Operator::infer`].
    pub outputs: Vec<Tensor>,
    /// What the backward halves will need.
    pub saved: Saved,
    /// A figure for the optimizer phase or the metrics, if the operator makes one.
    pub observed: Option<Observed>,
}

/// What a forward pass leaves for the backward halves; tensors in both lists share memory.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Needed by `I`; may be dropped after it.
    pub input: Vec<Tensor>,
    /// Needed by `W`.
    pub weight: Vec<Tensor>,
}

/// A figure that a forward pass makes beside its outputs.
#[derive(Clone, Debug)]
pub enum Observed {
    /// Largest input to the softmax of each head, for QK-Clip; K2 report, section 2.1.
    MaxLogits(Vec<f32>),
    /// Tokens routed to each expert, for the bias and the load figures.
    Load(Vec<u64>),
    /// Sum over tokens of the negative log-likelihood, and the number of tokens.
    Loss {
        /// In nats, unscaled.
        sum: f64,
        /// Tokens summed over.
        tokens: usize,
    },
    /// One of these that a GPU is still working on.
    Waiting(Waiting),
}

/// What a GPU will have written, and how it is read.
#[derive(Clone, Debug)]
pub struct Waiting {
    tensors: Vec<Tensor>,
    read: fn(&[Tensor]) -> Observed,
}

impl Observed {
    pub(crate) fn later(tensors: Vec<Tensor>, read: fn(&[Tensor]) -> Observed) -> Self {
        Observed::Waiting(Waiting { tensors, read })
    }

    /// The figure itself; waits for a GPU.
    pub fn known(self) -> Self {
        match self {
            Observed::Waiting(Waiting { tensors, read }) => {
                let all: Vec<Tensor> =
                    tensors.iter().map(|tensor| tensor.at(&Place::Host)).collect();
                read(&all)
            }
            known => known,
        }
    }
}

/// Extent of one dim as the graph knows it before any tensor exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dim {
    /// `t`: tokens of a microbatch.
    Tokens,
    /// `r`: routed rows, known only when the router has chosen.
    Rows,
    /// A fixed width.
    Of(usize),
}

/// What kind of numbers an edge carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Activations, in the precision of the job.
    Activation,
    /// Always f32: router weights.
    Exact,
    /// Whole numbers: tokens, choices, counts.
    Index,
}

/// Shape and kind of the tensor on an edge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spec {
    /// Extents, slowest first.
    pub dims: Vec<Dim>,
    /// Numbers carried.
    pub kind: Kind,
}

impl Spec {
    /// `[t, width]` activations.
    pub fn tokens(width: usize) -> Self {
        Spec { dims: vec![Dim::Tokens, Dim::Of(width)], kind: Kind::Activation }
    }

    /// `[r, width]` activations.
    pub fn rows(width: usize) -> Self {
        Spec { dims: vec![Dim::Rows, Dim::Of(width)], kind: Kind::Activation }
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self
            .dims
            .iter()
            .map(|d| match d {
                Dim::Tokens => "t".into(),
                Dim::Rows => "r".into(),
                Dim::Of(n) => n.to_string(),
            })
            .collect();
        let kind = match self.kind {
            Kind::Activation => "",
            Kind::Exact => " f32",
            Kind::Index => " i32",
        };
        write!(f, "[{}]{kind}", dims.join(", "))
    }
}

/// One weight tensor of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightSpec {
    /// Last part of its name, such as `weight` or `e_score_correction_bias`.
    pub name: &'static str,
    /// For grouped operators: number among the operator's experts, which replaces the `*` in
    /// the node's name.
    pub expert: Option<usize>,
    /// Extents, output dim first, as transformers stores them.
    pub shape: Vec<usize>,
    /// Values before the first step.
    pub init: Init,
    /// Which optimizer updates it.
    pub rule: Rule,
    /// Whether forward and backward read it in f32 even in a BF16 job (norms, router).
    pub exact: bool,
}

/// Values of a weight before the first step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// All ones: gains of norms.
    Ones,
    /// All zeros: the router's bias.
    Zeros,
}

/// Which rule updates a weight; K2 report section 2.1, Moonlight section 2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// Hidden matrices: Muon.
    Muon,
    /// Embedding, head and gains: AdamW.
    AdamW,
    /// The router's bias: moved by counts, not by a gradient.
    Balance,
}

/// Work and memory traffic of the three parts of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations of `F`.
    pub forward_flops: f64,
    /// Floating-point operations of `I`.
    pub input_flops: f64,
    /// Floating-point operations of `W`.
    pub weight_flops: f64,
    /// Elements saved for the backward halves.
    pub saved_elements: f64,
    /// Elements of activations read and written by `F`.
    pub moved_elements: f64,
}

/// Inputs an operator cannot take.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{op} expects {expected}, got {got}")]
pub struct ShapeError {
    /// Name of the operator as written in job files.
    pub op: &'static str,
    /// The shapes it takes, in dimension letters, such as `[t, d=64]`.
    pub expected: String,
    /// The shapes it was given.
    pub got: String,
}

macro_rules! operators {
    ($($name:ident),* $(,)?) => {
        /// One operator with its parameters, as a job file spells it.
        #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
        pub enum Op { $(
            #[doc = concat!("See [`", stringify!($name), "`].")]
            $name($name),
        )* }

        impl Op {
            /// The operator behind the name.
            pub fn operator(&self) -> &dyn Operator {
                match *self { $(Op::$name(ref op) => op,)* }
            }

            /// The name as job files write it.
            pub fn name(&self) -> &'static str {
                match *self { $(Op::$name(_) => stringify!($name),)* }
            }

            /// The names of all operators, for messages.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];
        }
    };
}

operators! {
    Embedding, RmsNorm, Linear, Split, MlaAttention, SwiGlu, Router, Dispatch, GroupedLinear,
    Weigh, Combine, Add, CrossEntropy,
}
