//! Seconds that operators take.

use std::ops::{Add, AddAssign, Mul};

use ops::{Cost, Dim, Op, stored_bytes};

use super::Pricing;
use crate::{
    flight::{self, Keeping, Restoring, Task},
    model::NodeId,
    plan::{Side, Visit},
};

/// Seconds of the parts of some work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Forward pass, `F`.
    pub forward: f64,
    /// Gradient of the input, `I`.
    pub input: f64,
    /// Gradient of the weights, `W`.
    pub weight: f64,
    /// Making what the backward pass reads as it was.
    pub restore: f64,
}

impl Parts {
    /// All of them.
    pub fn sum(self) -> f64 {
        self.forward + self.input + self.weight + self.restore
    }
}

impl Add for Parts {
    type Output = Parts;

    fn add(self, other: Parts) -> Parts {
        Parts {
            forward: self.forward + other.forward,
            input: self.input + other.input,
            weight: self.weight + other.weight,
            restore: self.restore + other.restore,
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
            restore: self.restore * factor,
        }
    }
}

impl Pricing<'_> {
    /// Seconds of each segment of a chunk.
    pub(super) fn segments(&self, chunk: usize) -> Vec<Parts> {
        let (tokens, segments) = (self.tokens(), &self.plan.chunks[chunk].segments);
        let node = |&node: &NodeId| self.priced(&self.graph.node(node).op, tokens);
        let sum = |nodes: &Vec<NodeId>| nodes.iter().map(node).fold(Parts::default(), Parts::add);
        let keeping = &self.keepings[Side::Stage as usize][&(chunk, 0)];
        let tasks = |segment| flight::tasks(self.plan, self.graph, Side::Stage, chunk, segment);
        let tasks: Vec<Vec<Task>> = (0..segments.len()).map(tasks).collect();
        let restorings = keeping.restorings(self.graph, &tasks);
        let both = segments.iter().map(sum).zip(restorings);
        both.map(|(parts, it)| self.with_storage(parts, keeping, &it, tokens)).collect()
    }

    /// Seconds of each visit of a chunk.
    pub(super) fn visits(&self, chunk: usize) -> Vec<Parts> {
        let visit = |(number, visit): (usize, &Visit)| {
            let rows = self.rows(visit).div_ceil(self.sources);
            let one = visit.nodes.iter().map(|(_, op)| self.priced(op, rows));
            let parts = one.fold(Parts::default(), Parts::add);
            let keeping = &self.keepings[Side::Experts as usize][&(chunk, number)];
            let tasks = flight::tasks(self.plan, self.graph, Side::Experts, chunk, number);
            let restoring = &keeping.restorings(self.graph, &[tasks])[0];
            self.with_storage(parts, keeping, restoring, rows) * self.sources as f64
        };
        self.plan.chunks[chunk].visits.iter().enumerate().map(visit).collect()
    }

    /// Adds what storing in FP8 costs forward, and what restoring costs.
    fn with_storage(
        &self,
        mut parts: Parts,
        keeping: &Keeping,
        restoring: &Restoring,
        amount: usize,
    ) -> Parts {
        let again = restoring.again.iter().map(|&node| &keeping.task(node).op);
        parts.restore += again.map(|op| self.priced(op, amount).forward).sum::<f64>();
        for &port in &restoring.decoded {
            let Some(Dim::Of(width)) = self.graph.node(port.0).outputs[port.1].dims.last() else {
                continue;
            };
            let plain = (amount * width * self.dtype.size()) as f64;
            let bytes = plain + stored_bytes(amount, *width) as f64;
            let seconds = self.device.launch + bytes / self.device.bandwidth;
            parts.forward += seconds;
            parts.restore += seconds;
        }
        parts
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
            restore: 0.0,
        }
    }
}

/// Elements of an operator's weights.
fn elements(op: &Op) -> f64 {
    let weights = op.operator().weights();
    weights.iter().map(|weight| weight.shape.iter().product::<usize>() as f64).sum()
}
