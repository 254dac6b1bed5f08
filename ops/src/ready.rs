//! Operators made ready to generate: forwards alone, weights packed once, into memory that stays.
//!
//! A row of an output has the same bits whatever rows stand beside it. Outputs are rounded to the
//! job's precision where the forward pass rounds them, and held in F32.

mod attention;
mod weight;

use kernels::{embedding, permute::Routing, reduce, rms_norm, router, swiglu};

pub use self::{
    attention::{Latents, ReadyAttention},
    weight::Weight,
};
use crate::{DType, Op, Router, Tensor, grouped_linear::experts};

/// Rows on an edge of the graph: numbers of either kind, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Activations, or shares of a router.
    pub floats: Vec<f32>,
    /// Tokens, choices, counts.
    pub whole: Vec<i32>,
}

/// The inputs of an operator: some of all edges, in its order.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// All edges.
    pub edges: &'a [Rows],
    /// Which of them.
    pub chosen: &'a [usize],
}

impl<'a> Inputs<'a> {
    fn floats(self, input: usize) -> &'a [f32] {
        &self.edges[self.chosen[input]].floats
    }

    fn whole(self, input: usize) -> &'a [i32] {
        &self.edges[self.chosen[input]].whole
    }
}

/// An operator with its weights, ready to run forwards.
#[derive(Debug)]
pub struct Ready {
    kind: Kind,
    dtype: DType,
}

#[derive(Debug)]
enum Kind {
    Embedding { table: Tensor, width: usize },
    RmsNorm { gain: Vec<f32>, eps: f32 },
    Linear(Weight),
    Split { widths: Vec<usize> },
    SwiGlu,
    Router { op: Router, weight: Weight, bias: Vec<f32> },
    Dispatch { width: usize, experts: usize, per_token: usize },
    GroupedLinear { weights: Vec<Weight>, input: usize, output: usize },
    Weigh { width: usize },
    Combine { width: usize, experts: usize, per_token: usize },
    Add,
}

impl Ready {
    /// Packs the weights of an operator; nothing for attention, which needs more than its inputs,
    /// and for the loss.
    pub fn new(op: &Op, w: &[Tensor], dtype: DType) -> Option<Self> {
        let kind = match op {
            Op::Embedding(op) => Kind::Embedding { table: w[0].clone(), width: op.width },
            Op::RmsNorm(op) => Kind::RmsNorm { gain: w[0].f32().into_owned(), eps: op.eps },
            Op::Linear(_) => Kind::Linear(Weight::new(&w[0])),
            Op::Split(op) => Kind::Split { widths: op.widths.clone() },
            Op::SwiGlu(_) => Kind::SwiGlu,
            Op::Router(op) => {
                let bias = w[1].f32().into_owned();
                Kind::Router { op: op.clone(), weight: Weight::new(&w[0]), bias }
            }
            Op::Dispatch(op) => {
                let (width, per_token) = (op.width, op.experts_per_token);
                Kind::Dispatch { width, experts: op.experts, per_token }
            }
            Op::GroupedLinear(op) => {
                let weights = w.iter().map(Weight::new).collect();
                Kind::GroupedLinear { weights, input: op.input, output: op.output }
            }
            Op::Weigh(op) => Kind::Weigh { width: op.width },
            Op::Combine(op) => {
                let (width, per_token) = (op.width, op.experts_per_token);
                Kind::Combine { width, experts: op.experts, per_token }
            }
            Op::Add(_) => Kind::Add,
            Op::MlaAttention(_) | Op::CrossEntropy(_) => return None,
        };
        Some(Ready { kind, dtype })
    }

    /// Writes the outputs, in the operator's order.
    pub fn run(&self, x: Inputs<'_>, y: &mut [Rows]) {
        match &self.kind {
            Kind::Embedding { table, width } => {
                look_up(table, *width, x.whole(0), &mut y[0].floats)
            }
            Kind::RmsNorm { gain, eps } => normalise(gain, *eps, x.floats(0), &mut y[0].floats),
            Kind::Linear(weight) => weight.multiply(x.floats(0), &mut y[0].floats),
            Kind::Split { widths } => split(widths, x.floats(0), y),
            Kind::SwiGlu => {
                let y = sized(&mut y[0].floats, x.floats(0).len());
                swiglu::forward_into(x.floats(0), x.floats(1), y);
            }
            Kind::Router { op, weight, bias } => route(op, weight, bias, x.floats(0), y),
            Kind::Dispatch { width, experts, per_token } => {
                dispatch(*width, *experts, *per_token, x, y);
            }
            Kind::GroupedLinear { weights, input, output } => {
                grouped(weights, *input, *output, x, &mut y[0].floats);
            }
            Kind::Weigh { width } => weigh(*width, x, &mut y[0].floats),
            Kind::Combine { width, experts, per_token } => {
                combine(*width, *experts, *per_token, x, &mut y[0].floats);
            }
            Kind::Add => add(x, &mut y[0].floats),
        }
        if self.dtype == DType::Bf16 && self.rounds() {
            y.iter_mut().for_each(|y| kernels::cast::round(&mut y.floats));
        }
    }

    /// Whether there is anything to round: copies are as round as their inputs, shares are exact.
    fn rounds(&self) -> bool {
        !matches!(self.kind, Kind::Split { .. } | Kind::Router { .. } | Kind::Dispatch { .. })
    }
}

/// The first `len` values, which are whatever was there before.
fn sized<T: Copy + Default>(values: &mut Vec<T>, len: usize) -> &mut [T] {
    values.resize(len, T::default());
    values
}

fn look_up(table: &Tensor, width: usize, tokens: &[i32], y: &mut Vec<f32>) {
    let y = sized(y, tokens.len() * width);
    let rows = y.chunks_exact_mut(width.max(1));
    match table.dtype() {
        DType::Bf16 => {
            let mut row = vec![half::bf16::ZERO; width];
            for (y, token) in rows.zip(tokens) {
                let table = bytemuck::cast_slice(table.bytes());
                embedding::gather(table, width, std::slice::from_ref(token), &mut row);
                kernels::cast::widen(&row, y);
            }
        }
        _ => embedding::gather(&table.f32(), width, tokens, y),
    }
}

fn normalise(gain: &[f32], eps: f32, x: &[f32], y: &mut Vec<f32>) {
    let mut inverse = vec![0.0; x.len() / gain.len().max(1)];
    rms_norm::forward(x, gain, eps, sized(y, x.len()), &mut inverse);
}

fn split(widths: &[usize], x: &[f32], y: &mut [Rows]) {
    y.iter_mut().for_each(|y| y.floats.clear());
    for row in x.chunks_exact(widths.iter().sum::<usize>().max(1)) {
        let mut rest = row;
        for (width, y) in widths.iter().zip(&mut *y) {
            let (part, others) = rest.split_at(*width);
            y.floats.extend_from_slice(part);
            rest = others;
        }
    }
}

fn route(op: &Router, weight: &Weight, bias: &[f32], x: &[f32], y: &mut [Rows]) {
    let (e, k) = (op.experts, op.experts_per_token);
    let mut scores = Vec::new();
    weight.multiply(x, &mut scores);
    router::scores(&mut scores);
    let chosen = scores.len() / e * k;
    let choice = sized(&mut y[0].whole, chosen);
    router::choose(&op.choice(), &scores, bias, choice);
    let mut own = vec![0.0; chosen];
    router::shares(
        e,
        k,
        op.scaling,
        &scores,
        &y[0].whole,
        &mut own,
        sized(&mut y[1].floats, chosen),
    );
}

fn dispatch(width: usize, experts: usize, per_token: usize, x: Inputs<'_>, y: &mut [Rows]) {
    let routing = Routing::new(x.whole(1), experts);
    let rows = sized(&mut y[0].floats, routing.rows.len() * width);
    routing.scatter(x.floats(0), width, per_token, rows);
    y[2].floats = routing.sorted(x.floats(2));
    y[1].whole = routing.counts;
}

/// Experts without a row are not read.
fn grouped(weights: &[Weight], input: usize, output: usize, x: Inputs<'_>, y: &mut Vec<f32>) {
    let rows = x.floats(0);
    let y = sized(y, rows.len() / input.max(1) * output);
    for (weight, part) in experts(weights, x.whole(1)) {
        let y = &mut y[part.start * output..part.end * output];
        weight.multiply_into(&rows[part.start * input..part.end * input], y);
    }
}

fn weigh(width: usize, x: Inputs<'_>, y: &mut Vec<f32>) {
    let rows = x.floats(0);
    let y = sized(y, rows.len()).chunks_exact_mut(width);
    let scaled = rows.chunks_exact(width).zip(y).zip(x.floats(1));
    scaled.for_each(|((row, y), share)| reduce::scaled(row, *share, y));
}

fn combine(width: usize, experts: usize, per_token: usize, x: Inputs<'_>, y: &mut Vec<f32>) {
    let (rows, choice) = (x.floats(0), x.whole(1));
    y.clear();
    let y = sized(y, choice.len() / per_token * width);
    Routing::new(choice, experts).gather_sum(rows, width, y);
}

fn add(x: Inputs<'_>, y: &mut Vec<f32>) {
    y.clear();
    y.extend_from_slice(x.floats(0));
    (1..x.chosen.len()).for_each(|input| reduce::add(y, x.floats(input)));
}
