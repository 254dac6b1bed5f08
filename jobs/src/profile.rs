//! Profiles as files: what `troupe measure` writes and prices are made from.

use std::{fmt::Write, path::Path};

use graphs::price::{Profile, Sample};

use crate::{
    de,
    exit::Failure,
    parse::parse,
    report::Report,
    resolve::operator,
    source::{Origin, Sources, Span},
};

/// Reads a profile.
///
/// # Errors
///
/// If the file cannot be read, or every mistake in it.
pub fn read(path: &Path) -> Result<Profile, Failure> {
    let failed = |error| Failure::environment(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parsed(&text, Origin::File(path.into()))
        .map_err(|report| Failure { code: 3, text: report.to_string() })
}

fn parsed(text: &str, origin: Origin) -> Result<Profile, Box<Report>> {
    let (mut sources, mut findings) = (Sources::default(), Vec::new());
    let source = sources.add(origin, text);
    let tree = parse(text, source, &mut findings);
    match de::read::<Profile>(&tree, &mut findings).0 {
        Some(profile) if findings.is_empty() => Ok(profile),
        _ => Err(Report::new(findings, sources)),
    }
}

/// A profile as text that reads back as the same profile.
pub fn text(profile: &Profile) -> String {
    let mut text = String::from("// Seconds, as `troupe measure` found them.\nProfile(\n");
    text += "    samples: [\n";
    profile.samples.iter().for_each(|sample| text += &line(sample));
    text += "    ],\n";
    let Profile { message, latency, byte, update, .. } = profile;
    let _ = writeln!(text, "    message: {message:e},\n    latency: {latency:e},");
    let _ = writeln!(text, "    byte: {byte:e},");
    let _ = writeln!(
        text,
        "    update: (muon_flop: {:e}, adamw_element: {:e}, join_element: {:e}),\n)",
        update.muon_flop, update.adamw_element, update.join_element
    );
    text
}

fn line(sample: &Sample) -> String {
    let span = Span {
        source: Sources::default().add(Origin::Argument(String::new()), ""),
        start: 0,
        end: 0,
    };
    let Sample { op, bf16, amount, sequence, forward, input, weight } = sample;
    format!(
        "        (op: {}, bf16: {bf16}, amount: {amount}, sequence: {sequence}, \
         forward: {forward:e}, input: {input:e}, weight: {weight:e}),\n",
        operator(op, span)
    )
}

#[cfg(test)]
mod tests {
    use graphs::price::Update;
    use ops::{GroupedLinear, MlaAttention, Op};

    use super::*;

    #[test]
    fn a_profile_reads_back_as_it_was_written() {
        let sample = |op, forward| Sample {
            op,
            bf16: true,
            amount: 256,
            sequence: 128,
            forward,
            input: 2.5e-7,
            weight: 0.0,
        };
        let attention = MlaAttention {
            heads: 4,
            nope: 32,
            rope: 16,
            value: 32,
            rope_theta: 50_000.0,
            yarn: None,
        };
        let grouped = GroupedLinear { experts: 8, input: 256, output: 128, init_std: 0.02 };
        let profile = Profile {
            samples: vec![
                sample(Op::MlaAttention(attention), 1.0 / 3.0),
                sample(Op::GroupedLinear(grouped), 1e-9),
            ],
            message: 4e-6,
            latency: 0.0,
            byte: 1.25e-10,
            update: Update { muon_flop: 1e-11, adamw_element: 2e-9, join_element: 3e-10 },
        };
        let text = text(&profile);
        let again = parsed(&text, Origin::File("profile.ron".into()));
        assert_eq!(again.unwrap_or_else(|report| panic!("{report}\n{text}")), profile);
        assert!(parsed("Profile(samples: [])", Origin::File("p.ron".into())).is_err());
    }
}
