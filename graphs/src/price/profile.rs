//! What was measured on a machine, and how prices follow from it.

use ops::{DType, Op};
use serde::{Deserialize, Serialize};

use super::Parts;

/// Measured seconds, as `troupe measure` writes them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Operators in the shapes of a job.
    pub samples: Vec<Sample>,
    /// Seconds of its thread that one message costs its sender, and its receiver.
    pub message: f64,
    /// Seconds from a send until the receiver's thread has it.
    pub latency: f64,
    /// Seconds that joining the pieces of a message costs, for each byte.
    pub byte: f64,
    /// The optimizer.
    pub update: Update,
}

/// One operator, measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The operator with its parameters.
    pub op: Op,
    /// Whether activations were BF16, and F32 otherwise.
    pub bf16: bool,
    /// Tokens or rows of a call.
    pub amount: usize,
    /// Tokens of a sequence.
    pub sequence: usize,
    /// Seconds of `F`.
    pub forward: f64,
    /// Seconds of `I`.
    pub input: f64,
    /// Seconds of `W`.
    pub weight: f64,
}

/// The optimizer phase, measured.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Seconds for each floating-point operation of Muon; see [`super::muon_flops`].
    pub muon_flop: f64,
    /// Seconds for each element that AdamW updates.
    pub adamw_element: f64,
    /// Seconds for each element of a gradient that an owner adds to its sum.
    pub join_element: f64,
}

impl Profile {
    /// Seconds of an operator for so many tokens or rows.
    ///
    /// The same operator measured for the nearest amount, scaled; if there is none, the mean rate
    /// of its kind. Nothing if no operator of its kind was measured.
    pub fn parts(&self, op: &Op, amount: usize, sequence: usize, dtype: DType) -> Option<Parts> {
        let bf16 = dtype == DType::Bf16;
        let fits = |sample: &&Sample| sample.bf16 == bf16 && sample.op.name() == op.name();
        let kind: Vec<&Sample> = self.samples.iter().filter(fits).collect();
        let same = kind.iter().filter(|sample| sample.op == *op && sample.sequence == sequence);
        let nearest = same.min_by_key(|sample| sample.amount.abs_diff(amount));
        if let Some(sample) = nearest.filter(|sample| sample.amount > 0) {
            return Some(sample.parts() * (amount as f64 / sample.amount as f64));
        }
        let rate = |sample: &&Sample| sample.parts() * (1.0 / work(&sample.op, sample));
        let sum = kind.iter().map(rate).fold(Parts::default(), |sum, rate| sum + rate);
        let asked = Sample { amount, sequence, ..(*kind.first()?).clone() };
        Some(sum * (work(op, &asked) / kind.len() as f64))
    }
}

impl Sample {
    fn parts(&self) -> Parts {
        Parts { forward: self.forward, input: self.input, weight: self.weight, restore: 0.0 }
    }
}

/// Work by which operators of a kind are compared: floating-point operations, or elements moved
/// where there are none.
fn work(op: &Op, sample: &Sample) -> f64 {
    let cost = op.operator().cost(sample.amount, sample.sequence);
    let flops = cost.forward_flops + cost.input_flops + cost.weight_flops;
    f64::max(if flops > 0.0 { flops } else { cost.moved_elements }, 1.0)
}
