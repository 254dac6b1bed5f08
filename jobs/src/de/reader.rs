//! serde's view of one value of the tree.

use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
    forward_to_deserialize_any,
};

use crate::{
    code,
    de::{
        Poison,
        access::{Entries, Fields, Items, Variant},
        mistake::{Mistake, public_name},
        suggest::suggestion,
    },
    tree::{Kind, Value, Word},
};

/// Variants that an enum takes for a record without a name.
const UNNAMED: [&str; 2] = ["Node", "Inline"];

/// One value, to be read as whatever type asks.
#[derive(Clone, Copy)]
pub struct Reader<'de> {
    /// The value.
    pub value: &'de Value,
    /// What is to be replaced or skipped.
    pub poison: &'de Poison,
    /// Whether the name in front of the value was a variant, and has been read.
    pub inner: bool,
}

impl<'de> Reader<'de> {
    /// The name in front, if it has not been read yet.
    fn name(&self) -> Option<&'de Word> {
        if self.inner { None } else { self.value.name() }
    }

    fn kind(&self, expected: &str, hint: &str) -> Mistake {
        if let (true, Some(name)) = (self.inner, self.value.name()) {
            let name = &name.text;
            let message = format!("`{name}` needs {expected}");
            let hint = if hint.is_empty() { format!("write {name}(..)") } else { hint.into() };
            return Mistake::other(code::TYPE, message, &hint).at(self.value);
        }
        Mistake::kind(expected, hint).at(self.value)
    }

    fn braces(&self, hint: &str) -> Mistake {
        let message = "records use ( ), maps use { }".into();
        Mistake::other(code::BRACES, message, hint).at(self.value)
    }

    /// Reads the fields of a record into the type called `name`.
    pub fn fields<V: Visitor<'de>>(
        self,
        name: &str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let name = public_name(name);
        let Kind::Record { name: written, fields } = &self.value.kind else {
            return Err(match self.value.kind {
                Kind::Map(_) => self.braces("write ( ) and names without quotes"),
                Kind::Tuple { .. } => self.kind(
                    &format!("the fields of {name} with their names"),
                    &format!("fields are {}", known.join(", ")),
                ),
                _ => self.kind(&format!("a record {name}(..)"), ""),
            });
        };
        if let Some(other) = self.name().filter(|word| word.text != name) {
            let message = format!("expected {name}(..), found {}(..)", other.text);
            return Err(Mistake::other(code::TYPE, message, "").shown(other.span).at(self.value));
        }
        let open = self.value.span;
        let opening = written.as_ref().map_or(open.first(), |word| word.span);
        let access = Fields::new(self.value.span, fields, self.poison);
        let result = visitor.visit_map(access);
        result.map_err(|mistake| mistake.owned(name).shown(opening).at(self.value))
    }

    /// Reads the values in parentheses or brackets.
    pub fn items<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Mistake> {
        let items: &[Value] = match &self.value.kind {
            Kind::Tuple { items, .. } if self.name().is_none() => items,
            Kind::List(_) => {
                return Err(self.kind(&format!("{count} values in ( )"), "write ( ), not [ ]"));
            }
            _ => return Err(self.kind(&format!("{count} values in ( )"), "")),
        };
        if items.len() != count {
            let message = format!("expected {count} values in ( ), found {}", items.len());
            return Err(Mistake::other(code::TYPE, message, "").at(self.value));
        }
        let access = Items::new(items, self.poison);
        visitor.visit_seq(access).map_err(|mistake| mistake.at(self.value))
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let result = match &self.value.kind {
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::Text(text) => visitor.visit_borrowed_str(text),
            Kind::Character(c) => visitor.visit_char(*c),
            Kind::Record { name: Some(name), fields } if self.inner && fields.is_empty() => {
                let message = format!("`{}` needs a value", name.text);
                Err(Mistake::other(code::TYPE, message, &format!("write {}(..)", name.text)))
            }
            Kind::List(items) => visitor.visit_seq(Items::new(items, self.poison)),
            Kind::Map(entries) => visitor.visit_map(Entries::new(entries, self.poison)),
            Kind::Record { name: None, fields } => {
                let access = Fields::new(self.value.span, fields, self.poison);
                let result = visitor.visit_map(access);
                result.map_err(|mistake| mistake.owned("Node"))
            }
            Kind::Record { name: Some(word), .. } | Kind::Tuple { name: Some(word), .. }
                if !self.inner =>
            {
                visitor.visit_enum(Variant { name: &word.text, span: word.span, reader: self })
            }
            _ => Err(Mistake::invalid_type(Unexpected::Other("value"), &visitor)),
        };
        result.map_err(|mistake| mistake.at(self.value))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value.kind {
            Kind::Record { name: Some(name), fields }
                if name.text == "None" && fields.is_empty() =>
            {
                visitor.visit_none()
            }
            Kind::Tuple { name: Some(name), items } if name.text == "Some" && items.len() == 1 => {
                visitor.visit_some(Reader { value: &items[0], inner: false, ..self })
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self).map_err(|mistake| mistake.at(self.value))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let Kind::List(items) = &self.value.kind else {
            return Err(self.kind("a list [ ]", "put it in [ ]"));
        };
        let access = Items::new(items, self.poison);
        visitor.visit_seq(access).map_err(|mistake| mistake.at(self.value))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.items(count, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.items(count, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.value.kind {
            Kind::Map(entries) => {
                let access = Entries::new(entries, self.poison);
                visitor.visit_map(access).map_err(|mistake| mistake.at(self.value))
            }
            Kind::Record { .. } | Kind::Tuple { .. } => {
                Err(self.braces("write {\"name\": value, ..}"))
            }
            _ => Err(self.kind("a map {\"name\": value, ..}", "")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        self.fields(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let owner = public_name(name);
        let unnamed = UNNAMED.into_iter().find(|name| variants.contains(name));
        let variant = match (self.name(), &self.value.kind, unnamed) {
            (Some(word), _, _) => Variant { name: &word.text, span: word.span, reader: self },
            (None, Kind::Record { .. }, Some(name)) => {
                Variant { name, span: self.value.span, reader: self }
            }
            _ => return Err(self.no_variant(owner, variants)),
        };
        visitor.visit_enum(variant).map_err(|mistake| mistake.owned(owner).at(self.value))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct identifier
    }
}

impl Reader<'_> {
    fn no_variant(&self, owner: &str, variants: &'static [&'static str]) -> Mistake {
        let list = variants.join(", ");
        let hint = match &self.value.kind {
            Kind::Text(text) => match suggestion(text, variants.iter().copied()) {
                Some(near) => format!("{owner} has {list}; write {near} without quotes"),
                None => format!("{owner} has {list}"),
            },
            _ => format!("{owner} has {list}"),
        };
        self.kind(&format!("a variant of {owner}"), &hint)
    }
}
