//! The learning rate over time: warm-up, stable, decay.
//!
//! Kimi K2, arXiv:2507.20534, section 2.5; WSD: Hu et al., arXiv:2404.06395, section 4.

use runtime::rate::{self, Rate, Shape};
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

impl LearningRate {
    /// The rate as the runtime knows it, when a step has `batch` tokens.
    pub fn over_tokens(&self, batch: u64) -> Rate {
        let LearningRate::Wsd(wsd) = self;
        let tokens = |extent: Extent| (extent.steps(batch) * batch) as f64;
        let fall = |begin, shape, to, over| rate::Decay { shape, begin, over: tokens(over), to };
        let decay = wsd.stable.zip(wsd.decay.as_ref()).map(|(stable, decay)| match *decay {
            Decay::Cosine(Cosine { to, over }) => fall(tokens(stable), Shape::Cosine, to, over),
            Decay::Linear(Linear { to, over }) => fall(tokens(stable), Shape::Linear, to, over),
        });
        Rate { peak: wsd.peak, warmup_end: tokens(wsd.warmup), decay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_kimi_k2_is_that_of_its_report() {
        let batch = 1 << 26;
        let over = Extent::Tokens(5_500_000_000_000);
        let rate = LearningRate::Wsd(Wsd {
            peak: 2e-4,
            warmup: Extent::Steps(500),
            stable: Some(Extent::Tokens(10_000_000_000_000)),
            decay: Some(Decay::Cosine(Cosine { to: 2e-5, over })),
        });
        let rate = rate.over_tokens(batch);
        for (step, expected) in [(250, 1e-4), (149_000, 2e-4), (189_990, 1.1e-4), (240_000, 2e-5)] {
            let got = rate.at(step * batch);
            assert!((got - expected).abs() < 1e-12, "step {step}: {got}");
        }
    }
}
