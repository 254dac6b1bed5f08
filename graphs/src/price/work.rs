//! Seconds that operators take.

use std::ops::{Add, AddAssign, Mul};

use ops::{Cost, Op};

use super::Pricing;
use crate::{model::NodeId, plan::Visit};

/// Seconds of the three parts of some work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Forward pass, `F`.
    pub forward: f64,
    /// Gradient of the input, `I`.
    pub input: f64,
    /// Gradient of the weights, `W`.
    pub weight: f64,
}

impl Parts {
    /// All three.
    pub fn sum(self) -> f64 {
        self.forward + self.input + self.weight
    }
}

impl Add for Parts {
    type Output = Parts;

    fn add(self, other: Parts) -> Parts {
        Parts {
            forward: self.forward + other.forward,
            input: self.input + other.input,
            weight: self.weight + other.weight,
        }
    }
}

impl AddAssign for Parts {
    fn add_assign(&mut self, other: Parts) {
        *self = *self + other;
    }
}

impl Mul<f64> for Parts {
    type Output = Parts;

    fn mul(self, factor: f64) -> Parts {
        Parts {
            forward: self.forward * factor,
            input: self.input * factor,
            weight: self.weight * factor,
        }
    }
}

impl Pricing<'_> {
    /// Seconds of each segment of a chunk.
    pub(super) fn segments(&self, segments: &[Vec<NodeId>]) -> Vec<Parts> {
        let tokens = self.tokens();
        let node = |&node: &NodeId| self.priced(&self.graph.node(node).op, tokens);
        let sum = |nodes: &Vec<NodeId>| nodes.iter().map(node).fold(Parts::default(), Parts::add);
        segments.iter().map(sum).collect()
    }

    /// Seconds of each visit of a chunk.
    pub(super) fn visits(&self, visits: &[Visit]) -> Vec<Parts> {
        let sum = |visit: &Visit| {
            let rows = self.rows(visit).div_ceil(self.sources);
            let one = visit.nodes.iter().map(|(_, op)| self.priced(op, rows));
            one.fold(Parts::default(), Parts::add) * self.sources as f64
        };
        visits.iter().map(sum).collect()
    }

    /// Seconds of one call of an operator for some tokens or rows.
    pub(super) fn priced(&self, op: &Op, amount: usize) -> Parts {
        let measured = self
            .profile
            .and_then(|profile| profile.parts(op, amount, self.plan.batch.context, self.dtype));
        measured.unwrap_or_else(|| self.computed(op, amount))
    }

    fn computed(&self, op: &Op, amount: usize) -> Parts {
        let cost = op.operator().cost(amount, self.plan.batch.context);
        let Cost { forward_flops, input_flops, weight_flops, moved_elements, .. } = cost;
        let (device, size) = (self.device, self.dtype.size() as f64);
        let (rate, weights) = match op {
            Op::Linear(_) | Op::GroupedLinear(_) | Op::CrossEntropy(_) => {
                (device.peak(self.dtype) * device.achieved, elements(op))
            }
            Op::MlaAttention(_) => (device.peak(self.dtype) * device.achieved, 0.0),
            _ => (device.f32, 0.0),
        };
        let moved = moved_elements * size;
        let time = |flops: f64, bytes: f64| {
            let seconds = f64::max(flops / rate, bytes / device.bandwidth);
            if seconds > 0.0 { device.launch + seconds } else { 0.0 }
        };
        let has_weights = weight_flops > 0.0;
        Parts {
            forward: time(forward_flops, moved + weights * size),
            // Reads what was saved and the output's gradient, writes the input's.
            input: time(input_flops, 2.0 * moved + weights * size),
            // Adds to gradients in F32: each is read and written.
            weight: if has_weights { time(weight_flops, moved + 8.0 * weights) } else { 0.0 },
        }
    }
}

/// Elements of an operator's weights.
fn elements(op: &Op) -> f64 {
    let weights = op.operator().weights();
    weights.iter().map(|weight| weight.shape.iter().product::<usize>() as f64).sum()
}
