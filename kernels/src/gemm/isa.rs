//! Which instructions the matrix products use.
//!
//! Chosen once for the process: the fastest that the processor has, or what the environment
//! variable `TROUPE_ISA` says. Results of different choices differ in their last bits.

use std::{str::FromStr, sync::OnceLock};

/// Instructions for matrix products.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Isa {
    /// BF16 in tiles of AMX; F32 as with `Avx512`.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// BF16 in pairs with `vdpbf16ps`; F32 as with `Avx512`.
    #[cfg(target_arch = "x86_64")]
    Dot,
    /// 16 floats at a time with fused multiply-add; BF16 is widened while packing.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 floats at a time with fused multiply-add; BF16 is widened while packing.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust; BF16 is widened while packing.
    Portable,
}

/// A choice that this processor or this program does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("TROUPE_ISA is `{got}`; this processor has {}", list(.has))]
pub struct IsaError {
    got: String,
    has: Vec<Isa>,
}

fn list(all: &[Isa]) -> String {
    all.iter().map(Isa::to_string).collect::<Vec<_>>().join(", ")
}

impl Isa {
    /// All that this processor has, fastest first.
    pub fn available() -> Vec<Isa> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        all.extend(Isa::of_x86_64());
        all.push(Isa::Portable);
        all
    }

    /// What an x86-64 has beside plain instructions, fastest first.
    #[cfg(target_arch = "x86_64")]
    fn of_x86_64() -> Vec<Isa> {
        use std::arch::is_x86_feature_detected as has;
        let wide = super::wide::has_avx512();
        let dot = wide && has!("avx512bf16");
        // On Intel's processors `vdpbf16ps` has half the rate of F32's products.
        let quick = super::dot::is_quick();
        let all = [
            (Isa::Amx, wide && super::amx::is_available()),
            (Isa::Dot, dot && quick),
            (Isa::Avx512, wide),
            (Isa::Dot, dot && !quick),
            (Isa::Avx2, has!("avx2") && has!("fma")),
        ];
        all.into_iter().filter(|(_, is_there)| *is_there).map(|(isa, _)| isa).collect()
    }

    /// What `TROUPE_ISA` asks for, or the fastest.
    ///
    /// # Errors
    ///
    /// [`IsaError`] if the variable names nothing that this processor has.
    pub fn chosen() -> Result<Isa, IsaError> {
        static CHOSEN: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        CHOSEN
            .get_or_init(|| {
                let has = Isa::available();
                match std::env::var("TROUPE_ISA") {
                    Err(_) => Ok(has[0]),
                    Ok(got) => got
                        .parse()
                        .ok()
                        .filter(|isa| has.contains(isa))
                        .ok_or(IsaError { got, has }),
                }
            })
            .clone()
    }

    /// What the products use: [`chosen`](Self::chosen), or the fastest if that is in error.
    pub fn best() -> Isa {
        Isa::chosen().unwrap_or_else(|_| Isa::available()[0])
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Isa::Dot => "dot",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Isa::available().into_iter().find(|isa| isa.to_string() == name).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_found_by_its_name_and_the_portable_one_is_always_there() {
        let all = Isa::available();
        assert_eq!(all.last(), Some(&Isa::Portable));
        for isa in &all {
            assert_eq!(isa.to_string().parse(), Ok(*isa));
        }
        let error = IsaError { got: "mmx".into(), has: vec![Isa::Portable] };
        assert_eq!(error.to_string(), "TROUPE_ISA is `mmx`; this processor has portable");
    }
}
