//! A job file as a tree of values, each of which knows where it was written.
//!
//! Includes, presets, plans and arguments edit this tree; serde sees only the result.

use crate::source::Span;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
    /// Places of the values that this one replaced, the last one first.
    pub beaten: Vec<Span>,
}

/// A name with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The name.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One `name: value` of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name of the field.
    pub name: Word,
    /// Its value.
    pub value: Value,
}

/// The forms a value can have.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// `".."`, or a raw string.
    Text(String),
    /// `'c'`.
    Character(char),
    /// `[a, b]`.
    List(Vec<Value>),
    /// `{key: value}`.
    Map(Vec<(Value, Value)>),
    /// `(a: 1)`, `Name(a: 1)`, `Name()`, `()` or a bare `Name`.
    Record {
        /// The name before the parenthesis.
        name: Option<Word>,
        /// The fields, in the order of the file.
        fields: Vec<Field>,
    },
    /// `(1, 2)` or `Name("x")`.
    Tuple {
        /// The name before the parenthesis.
        name: Option<Word>,
        /// The values.
        items: Vec<Value>,
    },
    /// What could not be read and has been reported.
    Broken,
}

impl Value {
    /// A value that replaced nothing.
    pub fn new(span: Span, kind: Kind) -> Self {
        Value { span, kind, beaten: Vec::new() }
    }

    /// The name in front of a record or tuple.
    pub fn name(&self) -> Option<&Word> {
        match &self.kind {
            Kind::Record { name, .. } | Kind::Tuple { name, .. } => name.as_ref(),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The string in `Name("..")`, if the value has this form and this name.
    pub fn wrapped(&self, wanted: &str) -> Option<(&str, Span)> {
        match &self.kind {
            Kind::Tuple { name: Some(name), items } if name.text == wanted && items.len() == 1 => {
                items[0].text().map(|text| (text, items[0].span))
            }
            _ => None,
        }
    }

    /// The value of a field of a record.
    pub fn field(&self, wanted: &str) -> Option<&Value> {
        match &self.kind {
            Kind::Record { fields, .. } => {
                fields.iter().find(|f| f.name.text == wanted).map(|f| &f.value)
            }
            _ => None,
        }
    }

    /// The value of a field of a record, to edit.
    pub fn field_mut(&mut self, wanted: &str) -> Option<&mut Value> {
        match &mut self.kind {
            Kind::Record { fields, .. } => {
                fields.iter_mut().find(|f| f.name.text == wanted).map(|f| &mut f.value)
            }
            _ => None,
        }
    }

    /// Takes a field out of a record.
    pub fn take(&mut self, wanted: &str) -> Option<Value> {
        let Kind::Record { fields, .. } = &mut self.kind else { return None };
        let at = fields.iter().position(|f| f.name.text == wanted)?;
        Some(fields.remove(at).value)
    }

    /// Sets a field of a record, noting what it replaces.
    pub fn put(&mut self, name: Word, value: Value) {
        let Kind::Record { fields, .. } = &mut self.kind else { return };
        match fields.iter_mut().find(|f| f.name.text == name.text) {
            Some(field) => {
                let old = std::mem::replace(&mut field.value, value);
                field.value.beat(old);
                field.name = name;
            }
            None => fields.push(Field { name, value }),
        }
    }

    /// Notes that this value replaced another.
    pub fn beat(&mut self, old: Value) {
        if old.span != self.span && old.kind != Kind::Broken {
            self.beaten.push(old.span);
        }
        self.beaten.extend(old.beaten);
    }

    /// The items of a list by their field `name`, if all have one: phases, or nodes of a block.
    pub fn named_items(&self) -> Option<Vec<(&str, &Value)>> {
        let Kind::List(items) = &self.kind else { return None };
        let named = |item| Some((Value::field(item, "name")?.text()?, item));
        let items: Option<Vec<(&str, &Value)>> = items.iter().map(named).collect();
        items.filter(|items| !items.is_empty())
    }

    /// The value at a path such as `actors.learner.lr.peak`.
    ///
    /// Names of records, and the parentheses around the only value of a variant, are looked
    /// through; items of lists are counted from zero.
    pub fn at(&self, path: &str) -> Option<&Value> {
        if path.is_empty() {
            return Some(self);
        }
        match &self.kind {
            Kind::Tuple { items, .. } if items.len() == 1 => items[0].at(path),
            Kind::Map(entries) => entries.iter().find_map(|(key, value)| {
                let rest = path.strip_prefix(key.text()?)?;
                let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
                value.at(rest)
            }),
            _ => {
                let (step, rest) = path.split_once('.').unwrap_or((path, ""));
                self.step(step)?.at(rest)
            }
        }
    }

    fn step(&self, step: &str) -> Option<&Value> {
        match &self.kind {
            Kind::List(items) | Kind::Tuple { items, .. } => items.get(step.parse::<usize>().ok()?),
            _ => self.field(step),
        }
    }

    /// The deepest value on the way to a path, which may be missing itself.
    pub fn nearest(&self, path: &str) -> &Value {
        let mut path = path;
        loop {
            match (self.at(path), path.rfind('.')) {
                (Some(value), _) => return value,
                (None, Some(dot)) => path = &path[..dot],
                (None, None) => return self,
            }
        }
    }

    /// What it is, for messages: `the string "2e-4"`, `a list`.
    pub fn described(&self) -> String {
        match &self.kind {
            Kind::Bool(value) => format!("`{value}`"),
            Kind::Integer(value) => format!("{value}"),
            Kind::Float(value) => format!("{value:?}"),
            Kind::Text(text) => format!("the string \"{text}\""),
            Kind::Character(c) => format!("the character '{c}'"),
            Kind::List(_) => "a list [ ]".into(),
            Kind::Map(_) => "a map { }".into(),
            Kind::Record { name: None, .. } => "a record ( )".into(),
            Kind::Tuple { name: None, .. } => "values in ( )".into(),
            Kind::Record { name: Some(name), .. } | Kind::Tuple { name: Some(name), .. } => {
                format!("`{}`", name.text)
            }
            Kind::Broken => "something unreadable".into(),
        }
    }
}
