//! What makes a step differ from its prices: slow ranks, and noise.

use std::collections::BTreeMap;

/// Under what conditions a plan is simulated; by default all ranks keep to their prices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Factors of all computations of some ranks, by stage: 1.2 is a fifth slower.
    ///
    /// The ranks of a stage meet at every all-to-all, so one slow rank slows its whole stage.
    pub slow: BTreeMap<usize, f64>,
    /// Standard deviation of each computation's time, relative to it.
    pub jitter: f64,
    /// Key of the noise; the same key gives the same step.
    pub seed: u64,
}

/// The least that noise leaves of a computation's time.
const LEAST: f64 = 0.05;

impl Conditions {
    /// The factor of a rank.
    pub(super) fn slowness(&self, stage: usize) -> f64 {
        self.slow.get(&stage).copied().unwrap_or(1.0)
    }

    /// The factor of one computation: normal around 1, keyed by seed and number.
    pub(super) fn noise(&self, number: u64) -> f64 {
        if self.jitter == 0.0 {
            return 1.0;
        }
        let key = scrambled(self.seed ^ scrambled(number));
        f64::max(1.0 + self.jitter * normal(key), LEAST)
    }
}

/// The sum of twelve uniform numbers less six: a standard normal, for all that matters here, and
/// with no function whose last bit differs between machines.
fn normal(key: u64) -> f64 {
    let mut sum = 0;
    for word in 0..3 {
        let bits = scrambled(key.wrapping_add(word));
        sum += (0..4).map(|part| bits >> (16 * part) & 0xffff).sum::<u64>();
    }
    sum as f64 / 65536.0 - 6.0
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014: SplitMix64.
fn scrambled(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_asked_deviation_and_the_same_seed_repeats_it() {
        let noisy = Conditions { jitter: 0.1, seed: 7, ..Conditions::default() };
        let values: Vec<f64> = (0..20_000).map(|number| noisy.noise(number)).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        // Five standard errors: 0.1 / sqrt(20000) for the mean, about half of it for the deviation.
        assert!((mean - 1.0).abs() < 0.0036, "{mean}");
        assert!((variance.sqrt() - 0.1).abs() < 0.0026, "{variance}");
        assert_eq!(values[3], noisy.noise(3));
        assert_ne!(noisy.noise(3), Conditions { seed: 8, ..noisy.clone() }.noise(3));
        assert_eq!(Conditions::default().noise(3), 1.0);
    }
}
