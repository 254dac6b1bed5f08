//! The CUDA sources, as they are compiled: prelude, what a source shares with others, the source.

use crate::attention::Heads;

const PRELUDE: &str = include_str!("prelude.cuh");
const FRAGMENTS: &str = include_str!("fragments.cuh");
const WARPGROUPS: &str = include_str!("warpgroups.cuh");
const GROUPS: &str = include_str!("../gemm/groups.cuh");
const HEAD: &str = include_str!("../attention/head.cuh");
const TILE: &str = include_str!("../attention/tile.cuh");
const ROWS: &str = include_str!("../attention/rows.cuh");
const PANELS: &str = include_str!("../attention/panels.cuh");

/// The architecture whose warpgroups multiply; code for it runs on compute capability 9.0 alone.
pub const HOPPER: &str = "sm_90a";

/// The format of activations that a source is compiled for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Format {
    /// Single precision.
    F32,
    /// The upper halves of such.
    Bf16,
}

/// Widths of a head, which are constants of attention's kernels.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Widths {
    /// Width of query and key without position; even.
    pub nope: usize,
    /// Width of the rotary part; even.
    pub rope: usize,
    /// Width of a value.
    pub value: usize,
}

impl Widths {
    /// Those of an attention.
    ///
    /// # Panics
    ///
    /// If a width of the key is odd: a rotary pair would lie across two tiles.
    pub fn of(heads: &Heads) -> Self {
        let &Heads { nope, rope, value, .. } = heads;
        assert!(nope.is_multiple_of(2) && rope.is_multiple_of(2), "[{nope} | {rope}] is odd");
        Widths { nope, rope, value }
    }

    /// Whether products of warpgroups have room for them, in registers and in shared memory.
    fn fit_warpgroups(self) -> bool {
        let Widths { nope, rope, value } = self;
        nope + rope <= 192 && value <= 128
    }
}

/// A source beside its CPU twin.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Source {
    /// `adamw.cu`
    AdamW,
    /// `attention/backward.cu`
    AttentionBackward(Widths),
    /// `attention/forward.cu`
    AttentionForward(Widths),
    /// `cast.cu`
    Cast,
    /// `cross_entropy.cu`
    CrossEntropy,
    /// `embedding.cu`
    Embedding,
    /// `fp8.cu`
    Fp8,
    /// `gemm/grouped.cu`, for warpgroups `gemm/grouped_warpgroups.cu`
    Grouped,
    /// `newton_schulz.cu`
    NewtonSchulz,
    /// `permute.cu`
    Permute,
    /// `reduce.cu`
    Reduce,
    /// `rms_norm.cu`
    RmsNorm,
    /// `rope.cu`
    Rope,
    /// `router.cu`
    Router,
    /// `squares.cu`
    Squares,
    /// `swiglu.cu`
    SwiGlu,
}

/// What is compiled at a time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Program {
    /// The kernels.
    pub source: Source,
    /// Of activations.
    pub format: Format,
}

impl Source {
    /// Every source, attention's for the given widths.
    pub fn all(widths: Widths) -> [Source; 16] {
        use Source::*;
        [
            AdamW,
            AttentionBackward(widths),
            AttentionForward(widths),
            Cast,
            CrossEntropy,
            Embedding,
            Fp8,
            Grouped,
            NewtonSchulz,
            Permute,
            Reduce,
            RmsNorm,
            Rope,
            Router,
            Squares,
            SwiGlu,
        ]
    }

    /// Its file and text.
    fn file(self) -> (&'static str, &'static str) {
        match self {
            Source::AdamW => ("adamw", include_str!("../adamw.cu")),
            Source::AttentionBackward(_) => {
                ("attention/backward", include_str!("../attention/backward.cu"))
            }
            Source::AttentionForward(_) => {
                ("attention/forward", include_str!("../attention/forward.cu"))
            }
            Source::Cast => ("cast", include_str!("../cast.cu")),
            Source::CrossEntropy => ("cross_entropy", include_str!("../cross_entropy.cu")),
            Source::Embedding => ("embedding", include_str!("../embedding.cu")),
            Source::Fp8 => ("fp8", include_str!("../fp8.cu")),
            Source::Grouped => ("gemm/grouped", include_str!("../gemm/grouped.cu")),
            Source::NewtonSchulz => ("newton_schulz", include_str!("../newton_schulz.cu")),
            Source::Permute => ("permute", include_str!("../permute.cu")),
            Source::Reduce => ("reduce", include_str!("../reduce.cu")),
            Source::RmsNorm => ("rms_norm", include_str!("../rms_norm.cu")),
            Source::Rope => ("rope", include_str!("../rope.cu")),
            Source::Router => ("router", include_str!("../router.cu")),
            Source::Squares => ("squares", include_str!("../squares.cu")),
            Source::SwiGlu => ("swiglu", include_str!("../swiglu.cu")),
        }
    }

    /// File and text of its form in BF16 for warpgroups, if it has one.
    fn file_for_warpgroups(self) -> Option<(&'static str, &'static str)> {
        match self {
            Source::AttentionBackward(widths) if widths.fit_warpgroups() => Some((
                "attention/backward_warpgroups",
                include_str!("../attention/backward_warpgroups.cu"),
            )),
            Source::AttentionForward(widths) if widths.fit_warpgroups() => Some((
                "attention/forward_warpgroups",
                include_str!("../attention/forward_warpgroups.cu"),
            )),
            Source::Grouped => {
                Some(("gemm/grouped_warpgroups", include_str!("../gemm/grouped_warpgroups.cu")))
            }
            _ => None,
        }
    }

    /// The widths of its kernels, if they are constants.
    fn widths(self) -> Option<Widths> {
        match self {
            Source::AttentionBackward(widths) | Source::AttentionForward(widths) => Some(widths),
            _ => None,
        }
    }
}

impl Program {
    /// Source, format and constants, for people and files.
    pub fn name(self) -> String {
        let format = match self.format {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
        };
        let widths = self.source.widths().map(|w| format!("-{}-{}-{}", w.nope, w.rope, w.value));
        let file = self.source.file().0.replace('/', "-");
        format!("{file}-{format}{}", widths.unwrap_or_default())
    }

    /// Whether its products for an architecture are those of warpgroups.
    pub fn has_warpgroups(self, architecture: &str) -> bool {
        self.file_for_warpgroups(architecture).is_some()
    }

    fn file_for_warpgroups(self, architecture: &str) -> Option<(&'static str, &'static str)> {
        let has_them = architecture == HOPPER && self.format == Format::Bf16;
        self.source.file_for_warpgroups().filter(|_| has_them)
    }

    /// All that is compiled for an architecture, with the files' names for messages.
    pub fn text(self, architecture: &str) -> String {
        let for_warpgroups = self.file_for_warpgroups(architecture);
        let (name, text) = for_warpgroups.unwrap_or_else(|| self.source.file());
        let mut shared = Vec::new();
        if self.source == Source::Grouped || self.source.widths().is_some() {
            shared.push(("cuda/fragments.cuh", FRAGMENTS));
        }
        if for_warpgroups.is_some() {
            shared.push(("cuda/warpgroups.cuh", WARPGROUPS));
        }
        if self.source == Source::Grouped {
            shared.push(("gemm/groups.cuh", GROUPS));
        }
        if self.source.widths().is_some() {
            shared.push(("attention/head.cuh", HEAD));
            shared.push(match for_warpgroups {
                Some(_) => ("attention/panels.cuh", PANELS),
                None => ("attention/tile.cuh", TILE),
            });
        }
        if matches!(self.source, Source::AttentionBackward(_)) {
            shared.push(("attention/rows.cuh", ROWS));
        }
        let name = format!("{name}.cu");
        let files = [("cuda/prelude.cuh", PRELUDE)].into_iter().chain(shared);
        let files = files.chain([(&*name, text)]);
        files.map(|(name, text)| format!("#line 1 \"{name}\"\n{text}")).collect()
    }

    /// Options that every compiler of it needs; 186 is a loop that an extent of zero leaves out.
    pub fn options(self) -> Vec<String> {
        let fixed = ["--std=c++17", "--fmad=false", "--diag-suppress=186"];
        let mut options: Vec<String> = fixed.map(String::from).to_vec();
        if self.format == Format::Bf16 {
            options.push("-DNUMBER_BF16".into());
        }
        if let Some(Widths { nope, rope, value }) = self.source.widths() {
            let widths = [("NOPE", nope), ("ROPE", rope), ("VALUE", value)];
            options.extend(widths.map(|(name, width)| format!("-D{name}={width}")));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_are_too_wide_for_warpgroups_have_none() {
        let has = |nope, rope, value, format, architecture| {
            let source = Source::AttentionForward(Widths { nope, rope, value });
            Program { source, format }.has_warpgroups(architecture)
        };
        assert!(has(128, 64, 128, Format::Bf16, HOPPER));
        assert!(
            !has(130, 64, 128, Format::Bf16, HOPPER) && !has(64, 64, 129, Format::Bf16, HOPPER)
        );
        assert!(!has(128, 64, 128, Format::F32, HOPPER));
        assert!(!has(128, 64, 128, Format::Bf16, "sm_80"));
    }
}
