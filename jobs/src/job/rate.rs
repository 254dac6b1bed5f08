//! The learning rate over time: warm-up, stable, decay; or one rate, or a way between two.
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
    /// One rate.
    Constant(Constant),
    /// From one rate to another along half a cosine.
    Cosine(Fall),
    /// From one rate to another along a line.
    Linear(Fall),
}

/// One rate all the time.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// The rate; left out: the one at which the phase before ended.
    #[serde(default)]
    pub from: Option<f64>,
}

/// A way from one rate to another, which then stays.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Fall {
    /// The first rate; left out: the one at which the phase before ended.
    #[serde(default)]
    pub from: Option<f64>,
    /// The last rate.
    pub to: f64,
    /// How long it takes; left out: the whole phase, or the whole run.
    #[serde(default)]
    pub over: Option<Extent>,
}

/// A stretch of training that a learning rate is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Tokens trained on before it.
    pub begin: u64,
    /// Tokens that it takes.
    pub tokens: u64,
    /// Tokens of its steps.
    pub batch: u64,
    /// The rate at which the phase before ended; zero if there was none.
    pub before: f64,
}

impl Stretch {
    fn count(&self, extent: Extent) -> f64 {
        match extent {
            Extent::Steps(steps) => steps as f64 * self.batch as f64,
            Extent::Tokens(tokens) => tokens as f64,
        }
    }
}

impl LearningRate {
    /// The rate by tokens, from the beginning of a stretch on.
    pub fn during(&self, stretch: Stretch) -> Rate {
        let fall = match self {
            LearningRate::Wsd(wsd) => return wsd.during(stretch),
            LearningRate::Constant(_) => None,
            LearningRate::Cosine(fall) => Some((Shape::Cosine, fall)),
            LearningRate::Linear(fall) => Some((Shape::Linear, fall)),
        };
        let decay = fall.map(|(shape, Fall { to, over, .. })| {
            let over = over.map_or(stretch.tokens as f64, |over| stretch.count(over));
            rate::Decay { shape, begin: 0.0, over, to: *to }
        });
        let peak = self.from().unwrap_or(stretch.before);
        Rate { begin: stretch.begin, peak, warmup_end: 0.0, decay }
    }

    /// The first rate, if it is said; that of a warm-up is zero.
    pub fn from(&self) -> Option<f64> {
        match self {
            LearningRate::Wsd(_) => Some(0.0),
            LearningRate::Constant(constant) => constant.from,
            LearningRate::Cosine(fall) | LearningRate::Linear(fall) => fall.from,
        }
    }
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
    /// Where the peak ends, counted from where the rate begins; left out: never.
    #[serde(default)]
    pub stable: Option<Extent>,
    /// How the rate falls after that; left out: it stays.
    #[serde(default)]
    pub decay: Option<Decay>,
}

fn nothing() -> Extent {
    Extent::Steps(0)
}

impl Wsd {
    fn during(&self, stretch: Stretch) -> Rate {
        let decay = self.stable.zip(self.decay.as_ref()).map(|(stable, decay)| {
            let (to, over) = decay.end();
            let shape = match decay {
                Decay::Cosine(_) => Shape::Cosine,
                Decay::Linear(_) => Shape::Linear,
            };
            let (begin, over) = (stretch.count(stable), stretch.count(over));
            rate::Decay { shape, begin, over, to }
        });
        let warmup_end = stretch.count(self.warmup);
        Rate { begin: stretch.begin, peak: self.peak, warmup_end, decay }
    }
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
