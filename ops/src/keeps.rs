//! What an operator leaves in memory, declared: a plan counts bytes before any tensor exists.

#[cfg(test)]
use crate::{Context, Forward, Operator, Tensor};
use crate::{DType, Dim, Kind, Spec};

/// What `F` keeps for the backward halves, and whether `I` makes anything new.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keeps {
    /// Tensors that `F` makes beside its outputs.
    pub fresh: Vec<Fresh>,
    /// What [`Saved::input`](crate::Saved::input) holds, in order.
    pub input: Vec<Kept>,
    /// What [`Saved::weight`](crate::Saved::weight) holds, in order.
    pub weight: Vec<Kept>,
    /// Whether `I` hands the gradient of the output on to all inputs, sharing its memory.
    pub passes_gradient: bool,
}

/// A tensor that is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// An input, by its position; shares the memory of the edge.
    Input(usize),
    /// An output, by its position; shares the memory of the edge.
    Output(usize),
    /// One of [`Keeps::fresh`], by its position.
    Fresh(usize),
}

/// Size of a tensor that `F` makes beside its outputs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fresh {
    /// Elements for each token.
    pub per_token: usize,
    /// Elements whatever the number of tokens.
    pub fixed: usize,
    /// What kind of numbers.
    pub kind: Kind,
}

impl Fresh {
    /// So many f32 for each token.
    pub fn f32_per_token(per_token: usize) -> Self {
        Fresh { per_token, fixed: 0, kind: Kind::Exact }
    }

    /// Bytes for `t` tokens.
    pub fn bytes(self, t: usize, activations: DType) -> u64 {
        ((t * self.per_token + self.fixed) * self.kind.dtype(activations).size()) as u64
    }
}

impl Keeps {
    /// Keeps these inputs for `I` and these for `W`, and nothing else.
    pub fn inputs(input: &[usize], weight: &[usize]) -> Self {
        let kept = |which: &[usize]| which.iter().copied().map(Kept::Input).collect();
        Keeps { input: kept(input), weight: kept(weight), ..Keeps::default() }
    }
}

impl Kind {
    /// Format of a tensor of this kind in a job whose activations are `activations`.
    pub fn dtype(self, activations: DType) -> DType {
        match self {
            Kind::Activation => activations,
            Kind::Exact => DType::F32,
            Kind::Index => DType::I32,
        }
    }
}

impl Spec {
    /// Bytes for `t` tokens and `r` routed rows.
    pub fn bytes(&self, t: usize, r: usize, activations: DType) -> u64 {
        let extent = |dim: &Dim| match *dim {
            Dim::Tokens => t,
            Dim::Rows => r,
            Dim::Of(width) => width,
        };
        let elements: usize = self.dims.iter().map(extent).product();
        (elements * self.kind.dtype(activations).size()) as u64
    }
}

/// Compares what an operator declares with what a call of it really kept and returned.
#[cfg(test)]
#[track_caller]
pub(crate) fn check(
    op: &dyn Operator,
    at: &Context,
    x: &[Tensor],
    forward: &Forward,
    dy: &[Tensor],
    dx: &[Option<Tensor>],
) {
    let (keeps, saved) = (op.keeps(), &forward.saved);
    let t = x.iter().map(|x| x.shape()[0]).max().unwrap_or(0);
    let place = |tensor: &Tensor| (tensor.bytes().as_ptr() as usize, tensor.bytes().len());
    let mut fresh: Vec<Option<(usize, usize)>> = vec![None; keeps.fresh.len()];
    for (declared, real) in [(&keeps.input, &saved.input), (&keeps.weight, &saved.weight)] {
        assert_eq!(declared.len(), real.len(), "tensors kept");
        for (kept, tensor) in declared.iter().zip(real) {
            match *kept {
                Kept::Input(input) => assert_eq!(place(&x[input]), place(tensor), "input {input}"),
                Kept::Output(y) => {
                    assert_eq!(place(&forward.outputs[y]), place(tensor), "output {y}")
                }
                Kept::Fresh(which) => {
                    let size = keeps.fresh[which];
                    assert_eq!(size.kind.dtype(at.dtype), tensor.dtype());
                    assert_eq!(
                        size.bytes(t, at.dtype),
                        tensor.bytes().len() as u64,
                        "fresh {which}"
                    );
                    assert_eq!(*fresh[which].get_or_insert(place(tensor)), place(tensor), "shared");
                }
            }
        }
    }
    for (dx, x) in dx.iter().zip(x) {
        assert!(dx.is_none() || x.dtype() != DType::I32, "whole numbers have no gradient");
        let Some(dx) = dx else { continue };
        assert_eq!(dx.shape(), x.shape(), "a gradient is as large as its input");
        let passed = dy.iter().any(|dy| place(dy) == place(dx));
        assert_eq!(passed, keeps.passes_gradient, "whether memory is shared");
    }
}
