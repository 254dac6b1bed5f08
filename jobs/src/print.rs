//! Writes a tree as RON that reads back as the same tree.

use std::fmt::Write;

use crate::tree::{Field, Kind, Value, Word};

/// Columns that a value may fill before it is broken into lines.
const WIDTH: usize = 80;

/// The text of a value, ending with a new line.
pub fn print(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0, 0);
    text.push('\n');
    text
}

/// The text of a value in one line.
pub fn inline(value: &Value) -> String {
    match &value.kind {
        Kind::Bool(value) => value.to_string(),
        Kind::Integer(value) => value.to_string(),
        Kind::Float(value) => format!("{value:?}"),
        Kind::Text(text) => format!("{text:?}"),
        Kind::Character(c) => format!("{c:?}"),
        Kind::List(items) => format!("[{}]", joined(items)),
        Kind::Map(entries) => {
            let entry =
                |(key, value): &(Value, Value)| format!("{}: {}", inline(key), inline(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Kind::Record { name: Some(name), fields } if fields.is_empty() => name.text.clone(),
        Kind::Record { name, fields } => {
            let field = |f: &Field| format!("{}: {}", f.name.text, inline(&f.value));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{}({})", shown(name), fields.join(", "))
        }
        Kind::Tuple { name, items } => format!("{}({})", shown(name), joined(items)),
        Kind::Broken => String::new(),
    }
}

fn joined(items: &[Value]) -> String {
    items.iter().map(inline).collect::<Vec<_>>().join(", ")
}

fn shown(name: &Option<Word>) -> &str {
    name.as_ref().map_or("", |name| &name.text)
}

/// Writes a value whose first line has `used` columns already.
fn write(text: &mut String, value: &Value, indent: usize, used: usize) {
    let line = inline(value);
    let is_leaf = !matches!(
        value.kind,
        Kind::List(_) | Kind::Map(_) | Kind::Record { .. } | Kind::Tuple { .. }
    );
    if is_leaf || used + line.len() < WIDTH {
        text.push_str(&line);
        return;
    }
    match &value.kind {
        Kind::List(items) => {
            let parts = items.iter().map(|item| (String::new(), item));
            block(text, "[", parts, "]", indent);
        }
        Kind::Map(entries) => {
            let parts = entries.iter().map(|(key, value)| (format!("{}: ", inline(key)), value));
            block(text, "{", parts, "}", indent);
        }
        Kind::Record { name, fields } => {
            let parts = fields.iter().map(|f| (format!("{}: ", f.name.text), &f.value));
            block(text, &format!("{}(", shown(name)), parts, ")", indent);
        }
        Kind::Tuple { name, items } if items.len() == 1 => {
            let _ = write!(text, "{}(", shown(name));
            write(text, &items[0], indent, 0);
            text.push(')');
        }
        Kind::Tuple { name, items } => {
            let parts = items.iter().map(|item| (String::new(), item));
            block(text, &format!("{}(", shown(name)), parts, ")", indent);
        }
        _ => text.push_str(&line),
    }
}

fn block<'v>(
    text: &mut String,
    open: &str,
    parts: impl Iterator<Item = (String, &'v Value)>,
    close: &str,
    indent: usize,
) {
    let _ = writeln!(text, "{open}");
    for (label, value) in parts {
        let start = " ".repeat(indent + 4) + &label;
        text.push_str(&start);
        write(text, value, indent + 4, start.len());
        text.push_str(",\n");
    }
    let _ = write!(text, "{}{close}", " ".repeat(indent));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        parse::parse,
        source::{Origin, SourceId, Sources, Span},
    };

    fn source() -> SourceId {
        Sources::default().add(Origin::Argument(String::new()), "")
    }

    fn word(text: String) -> Word {
        Word { text, span: Span { source: source(), start: 0, end: 0 } }
    }

    fn any_value() -> impl Strategy<Value = Kind> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Kind::Bool),
            any::<i64>().prop_map(|n| Kind::Integer(n.into())),
            (-1e300..1e300).prop_map(Kind::Float),
            ".{0,12}".prop_map(Kind::Text),
            any::<char>().prop_map(Kind::Character),
            "[A-Z][a-z0-9]{2,8}"
                .prop_map(|name| Kind::Record { name: Some(word(name)), fields: Vec::new() }),
        ];
        leaf.prop_recursive(4, 60, 6, |inner| {
            let value = inner.prop_map(|kind| Value::new(word(String::new()).span, kind));
            let values = prop::collection::vec(value.clone(), 1..6);
            let name = prop::option::of("[A-Z][a-z]{2,8}".prop_map(word));
            let keys = prop::collection::btree_map("[a-z]{3,9}", value, 1..6);
            let span = word(String::new()).span;
            prop_oneof![
                values.clone().prop_map(Kind::List),
                keys.clone().prop_map(move |entries| {
                    let key = |key| Value::new(span, Kind::Text(key));
                    Kind::Map(entries.into_iter().map(|(k, v)| (key(k), v)).collect())
                }),
                (name, keys).prop_map(|(name, keys)| {
                    let field = |(name, value)| Field { name: word(name), value };
                    Kind::Record { name, fields: keys.into_iter().map(field).collect() }
                }),
                values.prop_filter_map("no second pair of parentheses", |items| {
                    let nested = matches!(items[..], [Value { kind: Kind::Record { .. }, .. }]);
                    (!nested).then(|| Kind::Tuple { name: Some(word("Node".into())), items })
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(kind in any_value()) {
            let value = Value::new(word(String::new()).span, kind);
            let text = print(&value);
            let mut findings = Vec::new();
            let back = parse(&text, source(), &mut findings);
            prop_assert!(findings.is_empty(), "{findings:?} in {text}");
            prop_assert_eq!(inline(&back), inline(&value), "{}", text);
        }
    }
}
