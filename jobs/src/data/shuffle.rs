//! A permutation of `0..n` that is computed element by element, keyed by a seed.
//!
//! A balanced Feistel network permutes the next power of four, and elements that fall outside
//! `0..n` are sent through it again (cycle walking); Black and Rogaway, "Ciphers with Arbitrary
//! Finite Domains", CT-RSA 2002, section 5. Nothing is stored, so a position is enough to resume.

const ROUNDS: u64 = 6;

/// The image of `index` under the permutation of `0..n` that `seed` names.
///
/// # Panics
///
/// If `index` is not below `n`.
pub(super) fn permuted(index: u64, n: u64, seed: u64) -> u64 {
    assert!(index < n, "element {index} of {n}");
    let bits = (u64::BITS - (n - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1 << bits) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> bits, at & mask);
        for round in 0..ROUNDS {
            let key = seed.wrapping_add(round.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            (left, right) = (right, left ^ (mixed(right ^ mixed(key)) & mask));
        }
        at = left << bits | right;
        if at < n {
            return at;
        }
    }
}

/// The finaliser of SplitMix64; Steele, Lea and Flood, OOPSLA 2014, figure 9.
pub(super) fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_one_place() {
        for n in [1, 2, 3, 4, 5, 17, 256, 1000] {
            let mut seen: Vec<u64> = (0..n).map(|i| permuted(i, n, n * 31)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..n), "{n}");
        }
    }

    #[test]
    fn another_seed_is_another_order_and_few_elements_stay() {
        let order = |seed| (0..1000).map(|i| permuted(i, 1000, seed)).collect::<Vec<_>>();
        assert_ne!(order(1), order(2));
        let stay = order(1).iter().zip(0..).filter(|&(&at, i)| at == i).count();
        assert!(stay < 10, "{stay} of 1000 stay where they were; one is expected");
    }
}
