//! Quantities: plain numbers, or strings with units; one type for each dimension.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// How the advice about a wrong unit begins.
pub const UNITS: &str = "units are";

/// A number of things, such as tokens: `4096`, `"4Ki"`, `"15.5T"`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Count(pub u64);

/// An amount of memory or data: `"8MiB"`, `"72GB"`, or plain bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct ByteCount(pub u64);

/// A part of a training run: `"500 steps"`, or tokens: `"10T"`, `"10T tokens"`, `4096`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// Optimizer steps.
    Steps(u64),
    /// Tokens seen.
    Tokens(u64),
}

impl Extent {
    /// Steps of `batch` tokens that it takes, rounded up.
    pub fn steps(self, batch: u64) -> u64 {
        match self {
            Extent::Steps(steps) => steps,
            Extent::Tokens(tokens) => tokens.div_ceil(batch.max(1)),
        }
    }
}

/// How often something is done: `"30min"`, `"500 steps"`, or a plain number of steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Every {
    /// After so many optimizer steps.
    Steps(u64),
    /// After so many seconds.
    Seconds(u64),
}

/// Floating-point operations a second: `"989TF"`, or a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flops(pub f64);

/// Bytes a second: `"3.35TB/s"`, `"400Gb/s"` (bits), or plain bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bandwidth(pub f64);

/// A length of time: `"5us"`, or plain seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seconds(pub f64);

const FLOPS: [(&str, f64); 4] = [("GF", 1e9), ("TF", 1e12), ("PF", 1e15), ("MF", 1e6)];

const BANDWIDTHS: [(&str, f64); 8] = [
    ("MB/s", 1e6),
    ("GB/s", 1e9),
    ("TB/s", 1e12),
    ("MiB/s", 1048576.0),
    ("GiB/s", 1073741824.0),
    ("Mb/s", 1e6 / 8.0),
    ("Gb/s", 1e9 / 8.0),
    ("Tb/s", 1e12 / 8.0),
];

/// How many make a second, so that `"5us"` is the number nearest to 5e-6.
const TIMES: [(&str, f64); 4] = [("ns", 1e9), ("us", 1e6), ("ms", 1e3), ("s", 1.0)];

const COUNTS: [(&str, u64); 12] = [
    ("", 1),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("B", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("tokens", 1),
];

const BYTES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const STEPS: [(&str, u64); 2] = [("steps", 1), ("step", 1)];

const SECONDS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];

/// A dimension: how its plain numbers and its strings are read.
trait Measure: Sized {
    /// What it is, for messages, with an example.
    const WHAT: &'static str;
    /// Its units, for messages.
    fn units() -> Vec<&'static str>;
    /// A plain number, if this dimension has any.
    fn plain(number: f64) -> Option<Self>;
    /// A string with a unit; why not, if it is none.
    fn text(text: &str) -> Option<Self>;
}

impl Measure for Count {
    const WHAT: &'static str = "a count such as 4096 or \"4Ki\"";

    fn units() -> Vec<&'static str> {
        vec!["K", "M", "B", "T", "Ki", "Mi", "Gi"]
    }

    fn plain(number: f64) -> Option<Self> {
        whole(number).map(Count)
    }

    fn text(text: &str) -> Option<Self> {
        let text = text.strip_suffix(" tokens").unwrap_or(text);
        scaled(text, &COUNTS).map(Count)
    }
}

impl Measure for ByteCount {
    const WHAT: &'static str = "bytes such as \"8MiB\"";

    fn units() -> Vec<&'static str> {
        BYTES.iter().map(|(unit, _)| *unit).collect()
    }

    fn plain(number: f64) -> Option<Self> {
        whole(number).map(ByteCount)
    }

    fn text(text: &str) -> Option<Self> {
        scaled(text, &BYTES).map(ByteCount)
    }
}

impl Measure for Extent {
    const WHAT: &'static str = "steps or tokens such as \"500 steps\" or \"10T\"";

    fn units() -> Vec<&'static str> {
        [vec!["steps"], Count::units()].concat()
    }

    fn plain(number: f64) -> Option<Self> {
        whole(number).map(Extent::Tokens)
    }

    fn text(text: &str) -> Option<Self> {
        let steps = scaled(text, &STEPS).map(Extent::Steps);
        steps.or_else(|| Count::text(text).map(|count| Extent::Tokens(count.0)))
    }
}

impl Measure for Every {
    const WHAT: &'static str = "steps or a time such as \"500 steps\" or \"30min\"";

    fn units() -> Vec<&'static str> {
        vec!["steps", "s", "min", "h", "d"]
    }

    fn plain(number: f64) -> Option<Self> {
        whole(number).map(Every::Steps)
    }

    fn text(text: &str) -> Option<Self> {
        let steps = scaled(text, &STEPS).map(Every::Steps);
        steps.or_else(|| scaled(text, &SECONDS).map(Every::Seconds))
    }
}

/// A number times its unit, whole or not.
fn measured(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = parts(text)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let value = number * factor;
    (value.is_finite() && value >= 0.0).then_some(value)
}

impl Measure for Flops {
    const WHAT: &'static str = "operations a second such as \"989TF\"";

    fn units() -> Vec<&'static str> {
        FLOPS.iter().map(|(unit, _)| *unit).collect()
    }

    fn plain(number: f64) -> Option<Self> {
        Some(Flops(number))
    }

    fn text(text: &str) -> Option<Self> {
        measured(text, &FLOPS).map(Flops)
    }
}

impl Measure for Bandwidth {
    const WHAT: &'static str = "bytes or bits a second such as \"200GB/s\" or \"400Gb/s\"";

    fn units() -> Vec<&'static str> {
        BANDWIDTHS.iter().map(|(unit, _)| *unit).collect()
    }

    fn plain(number: f64) -> Option<Self> {
        Some(Bandwidth(number))
    }

    fn text(text: &str) -> Option<Self> {
        measured(text, &BANDWIDTHS).map(Bandwidth)
    }
}

impl Measure for Seconds {
    const WHAT: &'static str = "a time such as \"5us\"";

    fn units() -> Vec<&'static str> {
        TIMES.iter().map(|(unit, _)| *unit).collect()
    }

    fn plain(number: f64) -> Option<Self> {
        Some(Seconds(number))
    }

    fn text(text: &str) -> Option<Self> {
        let (number, unit) = parts(text)?;
        let (_, parts) = TIMES.iter().find(|(name, _)| *name == unit)?;
        let seconds = number / parts;
        (seconds.is_finite() && seconds >= 0.0).then_some(Seconds(seconds))
    }
}

/// The number in front and the unit behind it.
fn parts(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| c.is_alphabetic() || c == '%').unwrap_or(text.len());
    let number: f64 = text[..end].trim().replace('_', "").parse().ok()?;
    Some((number, text[end..].trim()))
}

/// A number times its unit, if that is a whole number that fits.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = parts(text)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    whole(number * *factor as f64)
}

/// A number as a count, if it is whole and fits.
fn whole(number: f64) -> Option<u64> {
    let is_exact = (0.0..9e15).contains(&number) && number.fract() == 0.0;
    is_exact.then_some(number as u64)
}

struct Reading<T>(PhantomData<T>);

impl<T: Measure> Visitor<'_> for Reading<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::plain(number as f64).ok_or_else(|| refusal::<T, E>(&number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Err(refusal::<T, E>(&number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        let plain = T::plain(number).filter(|_| number.is_finite() && number >= 0.0);
        plain.ok_or_else(|| refusal::<T, E>(&number.to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::text(text).ok_or_else(|| refusal::<T, E>(&format!("\"{text}\"")))
    }
}

/// Says what was expected, and which units there are.
fn refusal<T: Measure, E: Error>(got: &str) -> E {
    let units = T::units();
    let unit = parts(got.trim_matches('"')).map_or("", |(_, unit)| unit);
    let near = units.iter().find(|candidate| candidate.eq_ignore_ascii_case(unit));
    let near = match near {
        Some(near) if !unit.is_empty() && *near != unit => format!("; did you mean `{near}`?"),
        _ => String::new(),
    };
    E::custom(format!("expected {}, got {got}\n{UNITS} {}{near}", T::WHAT, units.join(", ")))
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

impl std::str::FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = || format!("{UNITS} {}", ByteCount::units().join(", "));
        let plain = text.parse().ok().map(ByteCount);
        plain.or_else(|| ByteCount::text(text)).ok_or_else(units)
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Flops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_scale_exactly() {
        assert_eq!(Count::text("4Ki"), Some(Count(4096)));
        assert_eq!(Count::text("64Mi"), Some(Count(67_108_864)));
        assert_eq!(Count::text("15.5T"), Some(Count(15_500_000_000_000)));
        assert_eq!(ByteCount::text("1.5GiB"), Some(ByteCount(3 << 29)));
        assert_eq!(Extent::text("500 steps"), Some(Extent::Steps(500)));
        assert_eq!(Extent::text("10T tokens"), Some(Extent::Tokens(10_000_000_000_000)));
        assert_eq!(Every::text("30min"), Some(Every::Seconds(1800)));
    }

    #[test]
    fn rates_have_bits_and_bytes_and_parts() {
        assert_eq!(Flops::text("989TF"), Some(Flops(9.89e14)));
        assert_eq!(Bandwidth::text("400Gb/s"), Some(Bandwidth(50e9)));
        assert_eq!(Bandwidth::text("3.35 TB/s"), Some(Bandwidth(3.35e12)));
        assert_eq!(Seconds::text("5us"), Some(Seconds(5e-6)));
        assert_eq!(Seconds::plain(0.5), Some(Seconds(0.5)));
        assert_eq!((Flops::text("989"), Seconds::text("-5us")), (None, None));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "Ki", "4ki", "1.0001K", "-1", "1e300", "30min", "nan"] {
            assert_eq!(Count::text(text), None, "{text}");
        }
        assert_eq!(ByteCount::text("72GIB"), None);
        assert_eq!(Every::text("30"), None);
    }

    #[test]
    fn tokens_become_steps_rounded_up() {
        assert_eq!(Extent::Tokens(15_500_000_000_000).steps(1 << 26), 230_968);
        assert_eq!(Extent::Steps(7).steps(1 << 26), 7);
    }
}
