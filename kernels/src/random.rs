//! Random numbers that are functions of a key and an index, and of nothing else.
//!
//! There is no generator to advance: the `index`-th number of a tensor is the same however the
//! tensor is cut, and independent of every other tensor.

use std::f64::consts::TAU;

/// 2^64 over the golden ratio: spreads neighbouring numbers.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection that flips half of the
/// output bits, on average, when one input bit changes.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The key of a named thing, such as a tensor, under a job's seed.
pub fn key(seed: u64, name: &str) -> u64 {
    let start = mix(seed.wrapping_add(GOLDEN));
    name.bytes().fold(start, |key, byte| mix((key ^ u64::from(byte)).wrapping_add(GOLDEN)))
}

/// 64 even bits.
pub fn bits(key: u64, index: u64) -> u64 {
    mix(key ^ mix(index.wrapping_mul(GOLDEN).wrapping_add(GOLDEN)))
}

/// Uniform in `0.0..1.0`.
pub fn uniform(key: u64, index: u64) -> f64 {
    (bits(key, index) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Normal with mean 0 and deviation 1, by Box and Muller; at most 6.7 from zero.
pub fn normal(key: u64, index: u64) -> f32 {
    let bits = bits(key, index);
    let unit = |half: u64| (half as f64 + 0.5) / (1_u64 << 32) as f64;
    let (radius, angle) = (unit(bits >> 32), unit(bits & 0xFFFF_FFFF));
    ((-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()) as f32
}

/// Numbers `first..` of the key, times `deviation`.
pub fn fill_normal(values: &mut [f32], key: u64, first: u64, deviation: f32) {
    for (index, value) in (first..).zip(values) {
        *value = normal(key, index) * deviation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_the_moments_of_a_normal_distribution() {
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(normal(key(1, "x"), i))).collect();
        let moment = |power: i32| values.iter().map(|x| x.powi(power)).sum::<f64>() / n as f64;
        // Five standard errors of each moment.
        for (power, expected, error) in
            [(1, 0.0, 1.0), (2, 1.0, 1.42), (3, 0.0, 3.9), (4, 3.0, 9.8)]
        {
            let tolerance = 5.0 * error / (n as f64).sqrt();
            assert!((moment(power) - expected).abs() < tolerance, "{power}: {}", moment(power));
        }
    }

    #[test]
    fn neighbours_and_names_are_independent() {
        let n = 100_000;
        let pairs: [(u64, u64, u64); 3] =
            [(key(1, "a"), key(1, "a"), 1), (key(1, "a"), key(1, "b"), 0), (1, 2, 0)];
        for (a, b, shift) in pairs {
            let sum: f64 =
                (0..n).map(|i| f64::from(normal(a, i)) * f64::from(normal(b, i + shift))).sum();
            assert!((sum / n as f64).abs() < 5.0 / (n as f64).sqrt());
        }
    }

    #[test]
    fn filling_in_slices_gives_the_same_numbers() {
        let mut whole = vec![0.0; 100];
        fill_normal(&mut whole, 5, 0, 0.02);
        let mut parts = vec![0.0; 100];
        let (left, right) = parts.split_at_mut(33);
        fill_normal(right, 5, 33, 0.02);
        fill_normal(left, 5, 0, 0.02);
        assert_eq!(whole, parts);
    }

    #[test]
    fn uniform_numbers_fill_the_interval() {
        let values: Vec<f64> = (0..10_000).map(|i| uniform(3, i)).collect();
        assert!(values.iter().all(|x| (0.0..1.0).contains(x)));
        assert!((values.iter().sum::<f64>() / 1e4 - 0.5).abs() < 0.015);
    }
}
