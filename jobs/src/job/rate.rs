//! The learning rate over time: warm-up, stable, decay.
//!
//! Kimi K2, arXiv:2507.20534, section 2.5; WSD: Hu et al., arXiv:2404.06395, section 4.

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
        match *self {
            Decay::Cosine(Cosine { to, over }) | Decay::Linear(Linear { to, over }) => (to, over),
        }
    }
}
