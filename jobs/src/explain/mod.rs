//! What every code, field, variant, preset and exit code means, in one table.

mod clusters;
mod codes;
mod fields;
mod policies;
mod shapes;
mod variants;

use std::fmt;

/// What a name names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Topic {
    /// The code of a mistake.
    Code,
    /// A field of a record.
    Field,
    /// A variant: a word that stands for one of several forms.
    Variant,
    /// A model, job or cluster that ships with the program.
    Library,
    /// The codes with which the program ends.
    Exit,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Topic::Code => "error",
            Topic::Field => "field",
            Topic::Variant => "variant",
            Topic::Library => "library",
            Topic::Exit => "exit codes",
        })
    }
}

/// One explanation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What is explained.
    pub name: &'static str,
    /// What it names.
    pub kind: Topic,
    /// The explanation.
    pub text: &'static str,
    /// How it is written, as it would stand between the parentheses of a record.
    pub example: &'static str,
}

const fn entry(
    kind: Topic,
    name: &'static str,
    text: &'static str,
    example: &'static str,
) -> Entry {
    Entry { name, kind, text, example }
}

const LIBRARY: &[Entry] = &[
    entry(
        Topic::Library,
        "k2-nano",
        "The shape of Kimi K2 at 8.2M parameters, and a job for it.",
        "model: Preset(\"k2-nano\")",
    ),
    entry(
        Topic::Library,
        "k2-mini",
        "The shape of Kimi K2 at 107.5M parameters, and a job for it.",
        "model: Preset(\"k2-mini\")",
    ),
    entry(
        Topic::Library,
        "k2-pretrain",
        "Kimi K2's own pre-training as a job, in its three phases: 1T parameters on 256 GPUs.",
        "base: \"k2-pretrain\"",
    ),
    entry(
        Topic::Library,
        "moonlight-16b-a3b",
        "Moonlight: 16B parameters, 3B active.",
        "model: Preset(\"moonlight-16b-a3b\")",
    ),
    entry(
        Topic::Library,
        "deepseek-v3",
        "DeepSeek-V3: 671B parameters, 37B active.",
        "model: Preset(\"deepseek-v3\")",
    ),
    entry(
        Topic::Library,
        "kimi-k2-1t",
        "Kimi K2: 1.03T parameters, 33B active.",
        "model: Preset(\"kimi-k2-1t\")",
    ),
    entry(
        Topic::Library,
        "h800x256",
        "32 nodes of 8 H800, on which Kimi K2 was trained.",
        "cluster: Preset(\"h800x256\")",
    ),
    entry(Topic::Library, "h100x64", "8 nodes of 8 H100.", "cluster: Preset(\"h100x64\")"),
    entry(
        Topic::Library,
        "gb300x256",
        "64 GPUs of each of 4 GB300 racks.",
        "cluster: Preset(\"gb300x256\")",
    ),
];

const EXIT: &[Entry] = &[entry(
    Topic::Exit,
    "exit",
    "0 fine\n1 unknown\n2 usage\n3 job invalid\n4 expectation broken\n5 differs\n10 peer lost\n\
     11 no progress\n12 numbers not finite\n13 out of memory\n14 checkpoint bad\n15 environment\n\
     130 stopped by the user after a clean save",
    "",
)];

/// Everything that can be explained, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    [
        codes::CODES,
        fields::FIELDS,
        shapes::SHAPES,
        policies::POLICIES,
        clusters::CLUSTERS,
        variants::VARIANTS,
        LIBRARY,
        EXIT,
    ]
    .into_iter()
    .flatten()
}

/// All entries with a name; some fields are called like variants of other things.
pub fn find(name: &str) -> Vec<&'static Entry> {
    all().filter(|entry| entry.name.eq_ignore_ascii_case(name)).collect()
}

/// The line that adds a field to a record.
pub fn line(field: &str) -> String {
    match all().find(|entry| entry.kind == Topic::Field && entry.name == field) {
        Some(entry) => format!("{},", entry.example),
        None => format!("{field}: ..,"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        library,
        parse::parse,
        source::{Origin, Sources},
        tree::{Kind, Value},
    };

    fn read(text: &str) -> Value {
        let source = Sources::default().add(Origin::Argument(String::new()), text);
        let mut findings = Vec::new();
        let value = parse(text, source, &mut findings);
        assert!(findings.is_empty(), "{text}: {findings:?}");
        value
    }

    #[test]
    fn every_example_parses() {
        for entry in all() {
            let value = read(&format!("({})", entry.example));
            if entry.kind == Topic::Field {
                assert!(value.field(entry.name).is_some(), "{}", entry.name);
            }
        }
    }

    #[test]
    fn no_two_entries_are_the_same() {
        let mut names: Vec<_> = all().map(|e| (e.name, e.kind.to_string())).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    fn words(value: &Value, fields: &mut Vec<String>, variants: &mut Vec<String>) {
        variants.extend(value.name().map(|name| name.text.clone()));
        match &value.kind {
            Kind::List(items) | Kind::Tuple { items, .. } => {
                items.iter().for_each(|item| words(item, fields, variants));
            }
            Kind::Map(entries) => {
                entries.iter().for_each(|(_, value)| words(value, fields, variants));
            }
            Kind::Record { fields: parts, .. } => {
                for part in parts {
                    fields.push(part.name.text.clone());
                    words(&part.value, fields, variants);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_word_of_the_library_and_of_the_examples_is_explained() {
        let (mut fields, mut variants) = (Vec::new(), Vec::new());
        let examples = all().map(|entry| format!("({})", entry.example));
        let shelves = [library::JOBS, library::MODELS, library::CLUSTERS].into_iter().flatten();
        for text in shelves.map(|(_, text)| text.to_string()).chain(examples) {
            words(&read(&text), &mut fields, &mut variants);
        }
        let has = |name: &str, kind| find(name).iter().any(|e| e.kind == kind && e.name == name);
        fields.retain(|name| !has(name, Topic::Field));
        variants.retain(|name| !has(name, Topic::Variant) && name != "Job");
        assert_eq!((fields, variants), (vec![], vec![]));
    }
}
