//! Puts the layers of a job together: presets, bases, the file, plans, arguments.
//!
//! From low to high: preset < `base` < file < `like` chain < `--plan` < `--set` left to right.
//! Records and maps merge, lists replace, variants merge only with the same variant. Everything
//! edits the tree; nothing has been typed yet.

mod include;
mod orders;
mod phases;
mod plans;
mod set;

use std::path::PathBuf;

pub use self::plans::unknown_plan;

use crate::{
    report::Finding,
    saved::Seal,
    source::{Sources, Span},
    tree::{Field, Kind, Value, Word},
};

/// Everything read so far, and every mistake met.
#[derive(Default)]
pub struct Overlay {
    /// The texts.
    pub sources: Sources,
    /// The mistakes.
    pub findings: Vec<Finding>,
    /// What the lowered plan must be, if the job is a saved plan.
    pub seal: Option<Seal>,
    /// Files being read, outermost first, to find circles.
    open: Vec<PathBuf>,
}

impl Overlay {
    /// Lays one value over another.
    ///
    /// A preset or file below a record without a name is read first, so that the record can change
    /// single fields of it.
    pub fn merge(&mut self, lower: Value, upper: Value) -> Value {
        let is_part = matches!(&upper.kind, Kind::Record { name: None, .. });
        let lower = if is_part { self.opened(lower) } else { lower };
        let span = upper.span;
        let beaten = upper.beaten.clone();
        let kind = match (lower.kind, upper.kind) {
            (Kind::Record { name: a, fields: low }, Kind::Record { name: b, fields: high })
                if same(a.as_ref(), b.as_ref()) =>
            {
                Kind::Record { name: b.or(a), fields: self.fields(low, high) }
            }
            (Kind::Map(low), Kind::Map(high)) => Kind::Map(self.entries(low, high)),
            (Kind::Tuple { name: a, items: mut low }, Kind::Tuple { name: b, items: mut high })
                if same(a.as_ref(), b.as_ref()) && is_map(&low) && is_map(&high) =>
            {
                let items = low.pop().zip(high.pop()).map(|(low, high)| self.merge(low, high));
                Kind::Tuple { name: b, items: items.into_iter().collect() }
            }
            (old, kind) => {
                let mut value = Value { span, kind, beaten };
                value.beat(Value { span: lower.span, kind: old, beaten: lower.beaten });
                return value;
            }
        };
        Value { span, kind, beaten }
    }

    fn fields(&mut self, mut low: Vec<Field>, high: Vec<Field>) -> Vec<Field> {
        for field in high {
            match low.iter_mut().find(|f| f.name.text == field.name.text) {
                Some(old) => {
                    let below = std::mem::replace(&mut old.value, broken(field.name.span));
                    old.value = self.merge(below, field.value);
                    old.name = field.name;
                }
                None => low.push(field),
            }
        }
        low
    }

    fn entries(
        &mut self,
        mut low: Vec<(Value, Value)>,
        high: Vec<(Value, Value)>,
    ) -> Vec<(Value, Value)> {
        for (key, value) in high {
            match low.iter_mut().find(|(k, _)| k.kind == key.kind) {
                Some(old) => {
                    let below = std::mem::replace(&mut old.1, broken(key.span));
                    *old = (key, self.merge(below, value));
                }
                None => low.push((key, value)),
            }
        }
        low
    }
}

fn same(low: Option<&Word>, high: Option<&Word>) -> bool {
    match (low, high) {
        (Some(low), Some(high)) => low.text == high.text,
        _ => true,
    }
}

fn is_map(items: &[Value]) -> bool {
    matches!(items, [Value { kind: Kind::Map(_), .. }])
}

fn broken(span: Span) -> Value {
    Value::new(span, Kind::Broken)
}
