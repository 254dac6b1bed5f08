//! The learning rate over time: warm-up, stable, decay.
//!
//! Kimi K2, arXiv:2507.20534, section 2.5; WSD: Hu et al., arXiv:2404.06395, section 4.

use std::f64::consts::PI;

use serde::Deserialize;

use crate::quantity::Extent;

/// Learning rate over time.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum LearningRate {
    /// Warm-up, stable, decay.
    Wsd(Wsd),
}

/// Rises linearly, stays, then falls.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Wsd {
    /// The highest rate.
    pub peak: f64,
    /// Length of the linear rise from zero.
    #[serde(default = "nothing")]
    pub warmup: Extent,
    /// Where the peak ends, counted from the start of the run; left out: never.
    #[serde(default)]
    pub stable: Option<Extent>,
    /// How the rate falls after that; left out: it stays.
    #[serde(default)]
    pub decay: Option<Decay>,
}

fn nothing() -> Extent {
    Extent::Steps(0)
}

/// How a rate falls.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub enum Decay {
    /// Along half a cosine.
    Cosine(Cosine),
    /// Along a line.
    Linear(Linear),
}

/// Half a cosine down to a rate.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Cosine {
    /// The last rate.
    pub to: f64,
    /// How long it takes.
    pub over: Extent,
}

/// A line down to a rate.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// The last rate.
    pub to: f64,
    /// How long it takes.
    pub over: Extent,
}

impl Decay {
    /// The last rate and how long it takes to get there.
    pub fn end(&self) -> (f64, Extent) {
        match self {
            Decay::Cosine(Cosine { to, over }) | Decay::Linear(Linear { to, over }) => (*to, *over),
        }
    }

    /// The share of the fall that is left at a part `x` of the way, from one to zero.
    fn left(&self, x: f64) -> f64 {
        match self {
            Decay::Cosine(_) => 0.5 * (1.0 + (PI * x).cos()),
            Decay::Linear(_) => 1.0 - x,
        }
    }
}

impl LearningRate {
    /// The rate of a step, counted from zero, when a step has `batch` tokens.
    pub fn at(&self, step: u64, batch: u64) -> f64 {
        let LearningRate::Wsd(wsd) = self;
        let warmup = wsd.warmup.steps(batch);
        if step < warmup {
            return wsd.peak * (step + 1) as f64 / warmup as f64;
        }
        let (Some(stable), Some(decay)) = (wsd.stable, &wsd.decay) else { return wsd.peak };
        let (to, over) = decay.end();
        let gone = step.saturating_sub(stable.steps(batch)) as f64;
        let x = (gone / over.steps(batch).max(1) as f64).min(1.0);
        to + (wsd.peak - to) * decay.left(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_kimi_k2_is_that_of_its_report() {
        let batch = 1 << 26;
        let rate = LearningRate::Wsd(Wsd {
            peak: 2e-4,
            warmup: Extent::Steps(500),
            stable: Some(Extent::Tokens(10_000_000_000_000)),
            decay: Some(Decay::Cosine(Cosine {
                to: 2e-5,
                over: Extent::Tokens(5_500_000_000_000),
            })),
        });
        for (step, expected) in
            [(249, 1e-4), (499, 2e-4), (149_000, 2e-4), (189_990, 1.1e-4), (240_000, 2e-5)]
        {
            let got = rate.at(step, batch);
            assert!((got - expected).abs() < 1e-12, "step {step}: {got}");
        }
    }
}
