//! A tree as text again: RON that reads back to the same tree.

use std::fmt::Write;

use crate::tree::{Kind, Value};

/// Width up to which a value stays on one line.
const WIDTH: usize = 96;

/// Writes a tree as RON, one field a line where a line would be too long.
pub fn written(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, 0);
    text.push('\n');
    text
}

fn write_value(text: &mut String, value: &Value, depth: usize) {
    let short = short(value);
    if depth * 4 + short.len() <= WIDTH && depth > 0 {
        text.push_str(&short);
        return;
    }
    let indent = "    ".repeat(depth + 1);
    let lines = |text: &mut String, open: &str, items: Vec<(String, &Value)>, close: char| {
        text.push_str(open);
        text.push('\n');
        for (head, item) in items {
            text.push_str(&indent);
            text.push_str(&head);
            write_value(text, item, depth + 1);
            text.push_str(",\n");
        }
        text.push_str(&"    ".repeat(depth));
        text.push(close);
    };
    match &value.kind {
        Kind::List(items) => {
            lines(text, "[", items.iter().map(|item| (String::new(), item)).collect(), ']');
        }
        Kind::Tuple { name, items } => {
            let open = format!("{}(", name.as_ref().map_or("", |name| &name.text));
            lines(text, &open, items.iter().map(|item| (String::new(), item)).collect(), ')');
        }
        Kind::Record { name, fields } => {
            let open = format!("{}(", name.as_ref().map_or("", |name| &name.text));
            let items = fields.iter().map(|f| (format!("{}: ", f.name.text), &f.value));
            lines(text, &open, items.collect(), ')');
        }
        Kind::Map(entries) => {
            let items =
                entries.iter().map(|(key, value)| (format!("{}: ", self::short(key)), value));
            lines(text, "{", items.collect(), '}');
        }
        _ => text.push_str(&short),
    }
}

/// A value on one line.
fn short(value: &Value) -> String {
    let list = |items: &[Value]| items.iter().map(short).collect::<Vec<_>>().join(", ");
    match &value.kind {
        Kind::Bool(yes) => yes.to_string(),
        Kind::Integer(number) => number.to_string(),
        Kind::Float(number) => format!("{number:?}"),
        Kind::Text(text) => quoted(text),
        Kind::Character(character) => format!("{character:?}"),
        Kind::List(items) => format!("[{}]", list(items)),
        Kind::Map(entries) => {
            let entry = |(key, value): &(Value, Value)| format!("{}: {}", short(key), short(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Kind::Record { name: Some(name), fields } if fields.is_empty() => name.text.clone(),
        Kind::Record { name, fields } => {
            let field = |f: &crate::tree::Field| format!("{}: {}", f.name.text, short(&f.value));
            let fields = fields.iter().map(field).collect::<Vec<_>>().join(", ");
            format!("{}({fields})", name.as_ref().map_or("", |name| &name.text))
        }
        Kind::Tuple { name, items } => {
            format!("{}({})", name.as_ref().map_or("", |name| &name.text), list(items))
        }
        Kind::Broken => String::new(),
    }
}

/// A string with its quotes, and escapes that RON knows.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{{{:x}}}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
