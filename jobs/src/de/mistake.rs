//! What serde refuses, turned into a finding with a place.

use std::fmt::Display;

use serde::de::{Expected, Unexpected};

use crate::{
    code,
    de::suggest::listed,
    explain,
    quantity::UNITS,
    report::Finding,
    source::Span,
    tree::{Kind, Value},
};

/// A refusal; its place is filled in by the first reader it passes on its way out.
#[derive(Debug)]
pub struct Mistake(Box<Details>);

#[derive(Debug)]
struct Details {
    what: What,
    /// Where the carets stand.
    shown: Option<Span>,
    /// What is poisoned.
    key: Option<Span>,
    /// Name of the record or enum that refused a name.
    owner: String,
    /// What stands there.
    found: String,
    /// What to do about it.
    hint: String,
}

#[derive(Debug)]
enum What {
    Field { name: String, accepted: &'static [&'static str] },
    Variant { name: String, accepted: &'static [&'static str] },
    Missing(&'static str),
    Type { expected: String },
    Range { expected: String, got: String },
    Other { code: &'static str, message: String },
}

impl Mistake {
    fn new(what: What) -> Self {
        Mistake(Box::new(Details {
            what,
            shown: None,
            key: None,
            owner: String::new(),
            found: String::new(),
            hint: String::new(),
        }))
    }

    /// A mistake with its own code and advice.
    pub fn other(code: &'static str, message: String, hint: &str) -> Self {
        let mut mistake = Mistake::new(What::Other { code, message });
        mistake.0.hint = hint.into();
        mistake
    }

    /// A value of the wrong kind, with advice.
    pub fn kind(expected: &str, hint: &str) -> Self {
        let mut mistake = Mistake::new(What::Type { expected: expected.into() });
        mistake.0.hint = hint.into();
        mistake
    }

    /// Sets the carets, unless they are set.
    pub fn shown(mut self, span: Span) -> Self {
        self.0.shown.get_or_insert(span);
        self
    }

    /// Names the record or enum, unless a deeper one has been named.
    pub fn owned(mut self, owner: &str) -> Self {
        if self.0.owner.is_empty() {
            self.0.owner = owner.into();
        }
        self
    }

    /// Sets the place to poison, and what is found there, unless a deeper place has been found.
    pub fn at(mut self, value: &Value) -> Self {
        if self.0.key.is_some() {
            return self;
        }
        let details = &mut *self.0;
        details.key = Some(value.span);
        details.shown.get_or_insert(value.span);
        details.found = value.described();
        if let What::Type { expected } = &details.what
            && details.hint.is_empty()
        {
            details.hint = type_hint(expected, value);
        }
        self
    }

    /// Sets the name of a field as the place to poison.
    pub fn at_name(mut self, span: Span) -> Self {
        self.0.shown.get_or_insert(span);
        self.0.key.get_or_insert(span);
        self
    }

    /// What to poison so that the next run gets further; `root` if no place is known.
    pub fn key(&self, root: Span) -> (Span, &'static str) {
        let field = match self.0.what {
            What::Missing(field) => field,
            _ => "",
        };
        (self.0.key.unwrap_or(root), field)
    }

    /// The finding for the error page.
    pub fn finding(self, root: Span) -> Finding {
        let Details { what, shown, owner, found, hint, .. } = *self.0;
        let span = shown.unwrap_or(root);
        match what {
            What::Field { name, accepted } => {
                Finding::new(code::UNKNOWN_FIELD, format!("unknown field `{name}`"))
                    .at(span, listed(&owner, &name, accepted))
            }
            What::Variant { name, accepted } => {
                let accepted = spelled(&owner, accepted);
                Finding::new(code::UNKNOWN_VARIANT, format!("unknown variant `{name}`"))
                    .at(span, listed(&owner, &name, &accepted))
            }
            What::Missing(field) => {
                let message = format!("field `{field}` is missing in {owner}");
                let line = explain::line(field);
                Finding::new(code::MISSING, message).at(span, "").help(format!("insert `{line}`"))
            }
            What::Type { expected } => {
                Finding::new(code::TYPE, format!("expected {expected}, found {found}"))
                    .at(span, hint)
            }
            What::Range { expected, got } => {
                Finding::new(code::VALUE, format!("expected {expected}, got {got}")).at(span, hint)
            }
            What::Other { code, message } => Finding::new(code, message).at(span, hint),
        }
    }
}

/// A model may also be written `Preset(..)` or `File(..)`, and a schedule `Csv(..)`; they are gone
/// before serde looks.
fn spelled(owner: &str, accepted: &[&'static str]) -> Vec<&'static str> {
    let includes: &[&str] = match owner {
        "Model" => &["Preset", "File"],
        "Schedule" => &["Csv"],
        _ => &[],
    };
    includes.iter().chain(accepted).copied().collect()
}

/// The name of a type as job files know it.
pub fn public_name(name: &str) -> &str {
    name.trim_end_matches("Spec").trim_end_matches("Source")
}

fn type_hint(expected: &str, value: &Value) -> String {
    match &value.kind {
        Kind::Text(text) if expected.contains("number") && text.parse::<f64>().is_ok() => {
            "drop the quotes".into()
        }
        Kind::Float(number) if expected.contains("whole") && number.fract() == 0.0 => {
            format!("write {number}")
        }
        Kind::Record { name: Some(name), fields } if expected.contains("string") => {
            if fields.is_empty() { format!("write \"{}\"", name.text) } else { String::new() }
        }
        _ if expected.contains("list") => "put it in [ ]".into(),
        _ => String::new(),
    }
}

/// Turns the type names that serde expects into words.
fn expectation(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" | "u64" | "usize" => "a whole number of at least 0".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" | "u128" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        other => other.into(),
    }
}

impl serde::de::Error for Mistake {
    /// The second line of a message is advice.
    fn custom<T: Display>(message: T) -> Self {
        let text = message.to_string();
        let (message, hint) = text.split_once('\n').unwrap_or((&text, ""));
        let code = if hint.starts_with(UNITS) { code::UNIT } else { code::VALUE };
        Mistake::other(code, message.into(), hint)
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Mistake::new(What::Type { expected: expectation(expected) })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let got = match found {
            Unexpected::Unsigned(n) => n.to_string(),
            Unexpected::Signed(n) => n.to_string(),
            Unexpected::Str(text) => format!("\"{text}\""),
            other => other.to_string(),
        };
        Mistake::new(What::Range { expected: expectation(expected), got })
    }

    fn unknown_field(name: &str, accepted: &'static [&'static str]) -> Self {
        Mistake::new(What::Field { name: name.into(), accepted })
    }

    fn unknown_variant(name: &str, accepted: &'static [&'static str]) -> Self {
        Mistake::new(What::Variant { name: name.into(), accepted })
    }

    fn missing_field(field: &'static str) -> Self {
        Mistake::new(What::Missing(field))
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.what)
    }
}

impl std::error::Error for Mistake {}
