//! What a plan must keep to, in figures.

use serde::Deserialize;

use crate::quantity::{ByteCount, Seconds};

/// Bounds on what follows from a plan; `check` ends with code 4 if one is broken.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Bytes of the fullest rank.
    #[serde(deserialize_with = "given")]
    pub max_memory: Option<ByteCount>,
    /// Part of the programs' time in which ranks idle.
    #[serde(deserialize_with = "given")]
    pub max_bubble: Option<f64>,
    /// Model flops utilisation, from 0 to 1.
    #[serde(deserialize_with = "given")]
    pub min_mfu: Option<f64>,
    /// Time of a step.
    #[serde(deserialize_with = "given")]
    pub max_step: Option<Seconds>,
}

/// Reads a value that stands there, so that no file has to write `Some`.
fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
