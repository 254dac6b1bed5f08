//! From the tree to typed values, by serde, with every mistake in one run.
//!
//! serde stops at its first error. So each error marks its place as poisoned and the tree is read
//! again; a poisoned value is replaced by an invented one of the right type ([`fake`]), a poisoned
//! field is skipped. A run with `n` mistakes reads the tree `n + 1` times.

mod access;
mod fake;
mod mistake;
mod reader;
mod suggest;

use std::collections::BTreeSet;

use serde::de::{DeserializeOwned, DeserializeSeed};

pub use suggest::{listed, suggestion};

use crate::{
    de::{fake::Fake, mistake::Mistake, reader::Reader},
    report::Finding,
    source::Span,
    tree::{Kind, Value},
};

/// Most mistakes that one run reports.
const MISTAKES: usize = 100;

/// Places that cannot be read as written: a value or a name by its span, a missing field by the
/// span of its record and its name.
#[derive(Clone, Debug, Default)]
pub struct Poison(BTreeSet<(Span, &'static str)>);

impl Poison {
    /// Whether a value, or anything in it, had to be invented.
    pub fn spoils(&self, value: &Value) -> bool {
        let parts = |items: &[Value]| items.iter().any(|item| self.spoils(item));
        let is_own = self.has(value.span) || self.missing(value.span).next().is_some();
        is_own
            || match &value.kind {
                Kind::Broken => true,
                Kind::List(items) | Kind::Tuple { items, .. } => parts(items),
                Kind::Map(entries) => entries.iter().any(|(_, value)| self.spoils(value)),
                Kind::Record { fields, .. } => fields.iter().any(|f| self.spoils(&f.value)),
                _ => false,
            }
    }

    /// Whether a field is missing in this record and had to be invented.
    pub fn misses(&self, record: &Value, field: &str) -> bool {
        self.missing(record.span).any(|missing| missing == field)
    }

    /// Whether the value at exactly this place is invented, or the field of this name skipped.
    pub fn has(&self, span: Span) -> bool {
        self.0.contains(&(span, ""))
    }

    /// Fields to be invented for a record.
    fn missing(&self, record: Span) -> impl Iterator<Item = &'static str> {
        let fields = self.0.iter().filter(move |(place, _)| *place == record);
        fields.map(|(_, field)| *field).filter(|field| !field.is_empty())
    }

    /// Reads a value, or invents one in its place.
    fn give<'de, S: DeserializeSeed<'de>>(
        &'de self,
        seed: S,
        value: &'de Value,
    ) -> Result<S::Value, Mistake> {
        if self.has(value.span) || value.kind == Kind::Broken {
            return seed.deserialize(Fake::default());
        }
        let result = seed.deserialize(Reader { value, poison: self, inner: false });
        result.map_err(|mistake| mistake.at(value))
    }
}

/// Reads a tree as a `T` and reports every mistake; invented values are marked in the poison.
pub fn read<T: DeserializeOwned>(tree: &Value, findings: &mut Vec<Finding>) -> (Option<T>, Poison) {
    let mut poison = Poison::default();
    for _ in 0..MISTAKES {
        let mistake = match poison.give(std::marker::PhantomData, tree) {
            Ok(value) => return (Some(value), poison),
            Err(mistake) => mistake,
        };
        let key = mistake.key(tree.span);
        findings.push(mistake.finding(tree.span));
        if !poison.0.insert(key) {
            break;
        }
    }
    (None, poison)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::{
        parse::parse,
        source::{Origin, Sources},
    };

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Mesh {
        pp: usize,
        ep: u8,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    enum Order {
        #[default]
        Plain,
        Meshed(Mesh),
        File(String),
        Both {
            left: f64,
            right: Option<Box<Order>>,
        },
        Repeat(String, usize),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Top {
        name: String,
        mesh: Mesh,
        #[serde(default)]
        orders: Vec<Order>,
        #[serde(default)]
        shares: BTreeMap<String, f64>,
        #[serde(default)]
        pair: (f32, f32),
        clip: Option<f32>,
    }

    fn check(text: &str) -> (Option<Top>, Vec<String>) {
        let mut sources = Sources::default();
        let source = sources.add(Origin::Argument(String::new()), text);
        let mut findings = Vec::new();
        let tree = parse(text, source, &mut findings);
        let (top, _) = read(&tree, &mut findings);
        let line =
            |f: &Finding| format!("{} {} @ {}", f.code, f.message, sources.text(f.places[0].span));
        (top, findings.iter().map(line).collect())
    }

    #[test]
    fn every_form_reads_into_its_type() {
        let (top, mistakes) = check(
            "Top(name: \"a\", mesh: (pp: 2), orders: [Plain, Meshed, Meshed(pp: 3), File(\"f\"), \
             Both(left: 1, right: Plain), Repeat(\"m\", 3)], shares: {\"x\": 1}, pair: (1, 2.5), \
             clip: 1)",
        );
        assert_eq!(mistakes, [""; 0]);
        let top = top.unwrap();
        assert_eq!(top.orders.len(), 6);
        assert_eq!(top.orders[1], Order::Meshed(Mesh::default()));
        assert_eq!(top.orders[2], Order::Meshed(Mesh { pp: 3, ep: 0 }));
        assert_eq!((top.pair, top.clip), ((1.0, 2.5), Some(1.0)));
    }

    #[test]
    fn all_mistakes_are_found_at_every_depth() {
        let (_, mistakes) = check(
            "(mesh: (ppp: 2, ep: 300), orders: [Plane, Plain(1), Both(lift: 1)], clip: \"2e-4\", \
             pair: 3)",
        );
        assert_eq!(
            mistakes,
            [
                "S012 unknown field `ppp` @ ppp",
                "S015 expected a whole number from 0 to 255, got 300 @ 300",
                "S013 unknown variant `Plane` @ Plane",
                "S010 `Plain` takes no values @ Plain(1)",
                "S012 unknown field `lift` @ lift",
                "S011 field `left` is missing in Both @ Both",
                "S010 expected a number, found the string \"2e-4\" @ \"2e-4\"",
                "S010 expected 2 values in ( ), found 3 @ 3",
                "S011 field `name` is missing in Top @ (",
            ]
        );
    }

    #[test]
    fn the_wrong_brackets_are_named() {
        let (_, mistakes) = check("(name: [], mesh: {\"pp\": 1}, shares: (x: 1), orders: (Plain))");
        assert_eq!(
            mistakes,
            [
                "S010 expected a string, found a list [ ] @ []",
                "S005 records use ( ), maps use { } @ {\"pp\": 1}",
                "S005 records use ( ), maps use { } @ (x: 1)",
                "S010 expected a list [ ], found values in ( ) @ (Plain)",
            ]
        );
    }
}
