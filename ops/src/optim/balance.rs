//! The router's bias moves by counts, not by a gradient.

/// Lowers the bias of experts with more than the mean load and raises it for those with less.
///
/// ```text
/// bias[e] += rate * (sign[e] - mean(sign)),   sign[e] = sign(mean(load) - load[e])
/// ```
///
/// Called once per step with the tokens of each expert over the whole batch. Counts are compared
/// as whole numbers. Subtracting the mean keeps the bias from drifting and changes no choice.
///
/// DeepSeek-V3, arXiv:2412.19437, section 2.1.2, in the centred form of Moonlight,
/// arXiv:2502.16982; the K2 report names no rule.
pub fn balance(rate: f32, load: &[u64], bias: &mut [f32]) {
    let (total, experts) = (load.iter().sum::<u64>(), load.len() as u64);
    let sign = |&load: &u64| match total.cmp(&(load * experts)) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Less => -1.0,
    };
    let mean = load.iter().map(sign).sum::<f32>() / experts.max(1) as f32;
    for (bias, load) in bias.iter_mut().zip(load) {
        *bias += rate * (sign(load) - mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_experts_become_less_likely_and_the_mean_stays() {
        let mut bias = [0.5, 0.0, 0.0, -0.5];
        balance(0.5, &[9, 1, 1, 1], &mut bias);
        // Signs -1 1 1 1 have the mean 0.5.
        assert_eq!(bias, [-0.25, 0.25, 0.25, -0.25]);
    }

    #[test]
    fn an_even_load_moves_nothing() {
        let mut bias = [0.25, -0.25];
        balance(0.5, &[7, 7], &mut bias);
        assert_eq!(bias, [0.25, -0.25]);
        balance(0.5, &[0, 0], &mut bias);
        assert_eq!(bias, [0.25, -0.25]);
    }
}
