//! What a GPU could compute at most: the measure that MFU is a share of.

/// Dense products of BF16 with sums in F32 by name of the GPU, in TFLOP/s, from NVIDIA's data
/// sheets, which tell twice as much for half-empty factors. The first that fits counts.
const KNOWN: [(&[&str], f64); 7] = [
    (&["H100", "PCIe"], 756.0),
    (&["H100", "NVL"], 835.0),
    (&["H200", "NVL"], 835.0),
    (&["H100"], 989.0),
    (&["H200"], 989.0),
    (&["H800"], 989.0),
    (&["A100"], 312.0),
];

/// Operations a second that the GPU of this name reaches at most in BF16, if it is known.
pub fn of(name: &str) -> Option<f64> {
    let (_, tera) = KNOWN.iter().find(|(words, _)| words.iter().all(|word| name.contains(word)))?;
    Some(tera * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_known_by_the_name_that_its_driver_gives() {
        for (name, tera) in [
            ("NVIDIA H100 80GB HBM3", Some(989.0)),
            ("NVIDIA H100 PCIe", Some(756.0)),
            ("NVIDIA H200", Some(989.0)),
            ("NVIDIA H200 NVL", Some(835.0)),
            ("NVIDIA A100-SXM4-80GB", Some(312.0)),
            ("no GPU: an emulation for tests", None),
        ] {
            assert_eq!(of(name), tera.map(|tera| tera * 1e12), "{name}");
        }
    }
}
