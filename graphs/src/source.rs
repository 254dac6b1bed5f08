//! A model as a job file writes it: named operators, blocks of them, and repeats of blocks.

use std::{collections::BTreeMap, fmt};

use ops::Op;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor},
};

/// A model graph as written; [`crate::model::ModelGraph::new`] checks it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSource {
    /// What a microbatch brings along.
    #[serde(default)]
    pub input: Input,
    /// Runs of nodes that [`Item::Repeat`] names.
    #[serde(default)]
    pub blocks: BTreeMap<String, Vec<NodeSource>>,
    /// The model from top to bottom.
    pub nodes: Vec<Item>,
}

/// Names of the dims that a microbatch's tensors have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Letter of the dim of `tokens` and `targets`.
    pub tokens: String,
}

impl Default for Input {
    fn default() -> Self {
        Input { tokens: "t".into() }
    }
}

/// One entry of the model's list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Item {
    /// The named block, so many times in a row; each time is one layer.
    Repeat(String, usize),
    /// A single node, named as its parameters are.
    #[serde(untagged)]
    Node(NodeSource),
}

/// One operator, its name and what it reads.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSource {
    /// Name, without the layer's prefix inside a block; left out: the operator's, in lower case.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// What it reads, in the operator's order; left out: the first output of the node before.
    ///
    /// `tokens` and `targets` are the microbatch's, `in` is what enters the block, and `name.1`
    /// is the second output of `name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

impl NodeSource {
    /// A node that reads the given names.
    pub fn new(name: &str, op: Op, from: &[&str]) -> Self {
        let from = from.iter().map(|name| name.to_string()).collect();
        NodeSource { name: name.into(), op, from }
    }
}

/// All that may stand in an entry written as a map; says which names are known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a node `(name: .., op: ..)`")]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "written")]
    op: Option<Op>,
    #[serde(default)]
    from: Vec<String>,
    #[serde(default, rename = "Repeat", deserialize_with = "written")]
    repeat: Option<(String, usize)>,
}

/// Reads a value that stands there, so that no file has to write `Some`.
fn written<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// Tells a node, written as a map, from a repeat, written as an enum's variant.
struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node `(name: .., op: ..)` or `Repeat(\"block\", times)`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        let entry = Entry::deserialize(de::value::MapAccessDeserializer::new(map))?;
        match (entry.op, entry.repeat) {
            (Some(op), None) => {
                Ok(Item::Node(NodeSource { name: entry.name, op, from: entry.from }))
            }
            (None, Some((block, times))) => Ok(Item::Repeat(block, times)),
            _ => Err(de::Error::missing_field("op")),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Item, A::Error> {
        match data.variant::<String>()? {
            (name, variant) if name == "Repeat" => variant.tuple_variant(2, RepeatVisitor),
            (name, _) => Err(de::Error::unknown_variant(&name, &["Repeat"])),
        }
    }
}

/// Reads the two parts of a repeat.
struct RepeatVisitor;

impl<'de> Visitor<'de> for RepeatVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block's name and a number of times")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Item, A::Error> {
        let block = parts.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let times = parts.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        Ok(Item::Repeat(block, times))
    }
}
