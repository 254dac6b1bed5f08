//! The learning rate as a function of tokens trained on.

/// Warm-up, stable, decay; K2 report, section 2.5.
///
/// Warm-up is linear from zero. All points are counted in tokens from `begin`, so the schedule does
/// not depend on the batch. Without warm-up it is a constant rate or a fall.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Tokens trained on before it.
    pub begin: u64,
    /// Rate between warm-up and decay.
    pub peak: f64,
    /// Tokens at which the warm-up ends.
    pub warmup_end: f64,
    /// What follows the peak; never anything if left out.
    pub decay: Option<Decay>,
}

/// The fall at the end of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Decay {
    /// Way from the peak to `to`.
    pub shape: Shape,
    /// Tokens at which it begins.
    pub begin: f64,
    /// Tokens it takes.
    pub over: f64,
    /// Rate at its end and ever after.
    pub to: f64,
}

/// Way from one rate to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Half a cosine wave.
    Cosine,
    /// A straight line.
    Linear,
}

impl Rate {
    /// The rate after `tokens` tokens of the whole training.
    pub fn at(&self, tokens: u64) -> f64 {
        let tokens = tokens.saturating_sub(self.begin) as f64;
        if tokens < self.warmup_end {
            return self.peak * tokens / self.warmup_end;
        }
        match &self.decay {
            Some(decay) if decay.begin < tokens => {
                let x = ((tokens - decay.begin) / decay.over).min(1.0);
                let left = match decay.shape {
                    Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * x).cos()),
                    Shape::Linear => 1.0 - x,
                };
                decay.to + (self.peak - decay.to) * left
            }
            _ => self.peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_kimi_k2_come_out() {
        let batch = 1_u64 << 26;
        let decay = Decay { shape: Shape::Cosine, begin: 10e12, over: 5.5e12, to: 2e-5 };
        let warmup_end = (500 * batch) as f64;
        let rate = Rate { begin: 0, peak: 2e-4, warmup_end, decay: Some(decay) };
        let at = |step: u64| rate.at(step * batch);
        assert_eq!(at(0), 0.0);
        assert_eq!(at(250), 1e-4);
        assert_eq!(at(500), 2e-4);
        assert_eq!(at(149_011), 2e-4);
        assert!((at(189_990) - 1.1e-4).abs() < 1e-9);
        assert!((at(230_968) - 2e-5).abs() < 1e-12);
        assert_eq!(at(400_000), 2e-5);
    }

    #[test]
    fn a_rate_that_begins_later_is_the_same_one_moved() {
        let decay = Decay { shape: Shape::Linear, begin: 30.0, over: 20.0, to: 1.0 };
        let early = Rate { begin: 0, peak: 3.0, warmup_end: 10.0, decay: Some(decay) };
        let late = Rate { begin: 1000, ..early.clone() };
        assert!((0..80).all(|tokens| late.at(1000 + tokens) == early.at(tokens)));
        assert_eq!(
            [5, 20, 40, 50, 60].map(|tokens| late.at(1000 + tokens)),
            [1.5, 3.0, 2.0, 1.0, 1.0]
        );
    }
}
