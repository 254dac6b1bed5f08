//! Compiles a loop for the widest vectors of the processor it runs on.
//!
//! Rust neither reorders nor contracts float operations, so all versions of a loop give the same
//! bits; only the number of elements per instruction differs.

/// Runs `body`, compiled for the widest vectors at hand.
///
/// `body` should call an `#[inline(always)]` function: what is not inlined stays narrow.
#[inline(always)]
pub(crate) fn widest<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
        {
            // SAFETY: the processor has just said that it has the features.
            return unsafe { x86::avx512(body) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just said that it has the feature.
            return unsafe { x86::avx2(body) };
        }
    }
    body()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
    pub(super) fn avx512<R>(body: impl FnOnce() -> R) -> R {
        body()
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2<R>(body: impl FnOnce() -> R) -> R {
        body()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exp::exp, random::normal};

    #[test]
    fn wide_and_narrow_code_give_the_same_bits() {
        #[inline(always)]
        fn rough(values: &mut [f32]) {
            values.iter_mut().for_each(|x| *x = exp(*x) * 0.3 + *x * *x);
        }
        let mut narrow: Vec<f32> = (0..1003).map(|i| normal(7, i)).collect();
        let mut wide = narrow.clone();
        rough(&mut narrow);
        widest(|| rough(&mut wide));
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&narrow), bits(&wide));
    }
}
