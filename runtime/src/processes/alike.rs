//! What has to be the same in all processes of a run, and what is said if it is not.

use std::fmt::{self, Write};

use kernels::gemm::isa::Isa;

use crate::{cluster::Setup, error::RunError};

/// Everything that has to be alike, by name: version, instructions, plan and model, settings,
/// weights.
///
/// Of weights, names, shapes and the ends of each are compared: whole ones would be read twice.
pub(crate) fn alike(setup: &Setup) -> Vec<(String, String)> {
    let Setup { plan, graph, optimizer, dtype, seed, audit, machine, .. } = setup;
    let settings = (optimizer, dtype, seed, audit, machine, &setup.step, &setup.tokens);
    let weights = setup.tensors.iter().map(|(name, tensor)| {
        let bytes = tensor.bytes();
        let (first, last) =
            (&bytes[..bytes.len().min(64)], &bytes[bytes.len() - bytes.len().min(64)..]);
        (name, tensor.shape(), first, last)
    });
    let weights: Vec<_> = weights.collect();
    let isa = Isa::chosen().map_or_else(|error| error.to_string(), |isa| isa.to_string());
    let all = [
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("instructions", isa),
        ("plan", hash(&(plan, graph))),
        ("settings", hash(&settings)),
        ("weights", hash(&weights)),
    ];
    all.map(|(name, value)| (name.to_string(), value)).into()
}

/// The hash of everything that a value prints.
fn hash(what: &dyn fmt::Debug) -> String {
    struct Hasher(blake3::Hasher);
    impl Write for Hasher {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut hasher = Hasher(blake3::Hasher::new());
    write!(hasher, "{what:?}").expect("a hash takes all");
    hasher.0.finalize().to_hex().to_string()
}

/// Compares what another process has with what this one has.
///
/// # Errors
///
/// [`RunError::Unlike`] with what differs first.
pub(super) fn compare(
    process: usize,
    own: &[(String, String)],
    other: &[(String, String)],
) -> Result<(), RunError> {
    let differs = own.iter().zip(other).find(|(own, other)| own != other);
    let cause = match differs {
        None if own.len() == other.len() => return Ok(()),
        Some(((name, own), (_, other))) if name == "instructions" => format!(
            "it multiplies with {other}, process 0 with {own}, which have other bits; \
             `TROUPE_ISA` makes them alike"
        ),
        Some(((name, _), _)) => {
            format!("not the {name} of process 0; all need the same program and the same files")
        }
        None => "its program is not that of process 0".into(),
    };
    Err(RunError::Unlike { process, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let one = |value: &str| {
            [("version", "1"), ("instructions", value), ("plan", "a")]
                .map(|(name, value)| (name.to_string(), value.to_string()))
        };
        let mut other = one("dot");
        assert!(compare(1, &one("dot"), &other).is_ok());
        let told = |own: &[_], other: &[_]| compare(1, own, other).unwrap_err().to_string();
        let text = told(&one("wide"), &other);
        assert!(text.contains("process 1") && text.contains("TROUPE_ISA"), "{text}");
        other[2].1 = "b".into();
        assert!(told(&one("dot"), &other).contains("not the plan of"));
        assert!(told(&one("dot"), &other[..2]).contains("its program"));
    }

    #[test]
    fn a_hash_is_of_everything_that_is_printed() {
        assert_eq!(hash(&("a", 1)), hash(&("a", 1)));
        assert_ne!(hash(&("a", 1)), hash(&("a", 2)));
    }
}
