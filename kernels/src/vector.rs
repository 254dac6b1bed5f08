//! Compiles loops for the widest vectors of the processor they run on.
//!
//! Rust neither reorders nor contracts float operations, so all versions of a loop give the same
//! bits; only the number of elements per instruction differs. `mul_add` is one instruction in the
//! wide versions, and rounds once everywhere. A macro, because only the body of a
//! function can be made part of several others for certain; a closure may stay outside, narrow.

/// What the processor offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Width {
    /// 16 floats at a time.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 floats at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What every processor of the target has.
    Narrow,
}

impl Width {
    /// Asks the processor; the standard library remembers the answer.
    #[inline]
    pub(crate) fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let wide = has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq");
            if wide && has!("fma") {
                return Width::Avx512;
            }
            if has!("avx2") && has!("fma") {
                return Width::Avx2;
            }
        }
        Width::Narrow
    }
}

/// Makes functions that run their bodies compiled for [`Width::widest`].
macro_rules! vectorised {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident$(<$($number:ident: $bound:path),+>)?(
            $($argument:ident: $kind:ty),* $(,)?
        ) $(-> $output:ty)?
        $body:block
    )*) => { $(
        $(#[$attribute])*
        $visibility fn $name$(<$($number: $bound),+>)?($($argument: $kind),*) $(-> $output)? {
            #[inline(always)]
            fn plain$(<$($number: $bound),+>)?($($argument: $kind),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,fma")]
            fn avx512$(<$($number: $bound),+>)?($($argument: $kind),*) $(-> $output)? {
                plain($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2$(<$($number: $bound),+>)?($($argument: $kind),*) $(-> $output)? {
                plain($($argument),*)
            }

            match $crate::vector::Width::widest() {
                // SAFETY: `widest` has asked the processor for exactly these features.
                #[cfg(target_arch = "x86_64")]
                $crate::vector::Width::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::vector::Width::Avx2 => unsafe { avx2($($argument),*) },
                $crate::vector::Width::Narrow => plain($($argument),*),
            }
        }
    )* };
}

pub(crate) use vectorised;

#[cfg(test)]
mod tests {
    use crate::{exp::exp, random::normal, reduce::sum_of};

    #[inline(always)]
    fn rough(values: &mut [f32]) -> f32 {
        values.iter_mut().for_each(|x| *x = exp(*x) * 0.3 + *x * *x);
        sum_of(values, values, |a, b| a * b + a)
    }

    vectorised! {
        fn wide(values: &mut [f32]) -> f32 {
            rough(values)
        }
    }

    #[test]
    fn wide_and_narrow_code_give_the_same_bits() {
        let mut narrow: Vec<f32> = (0..1003).map(|i| normal(7, i)).collect();
        let mut other = narrow.clone();
        assert_eq!(rough(&mut narrow).to_bits(), wide(&mut other).to_bits());
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&narrow), bits(&other));
    }
}
