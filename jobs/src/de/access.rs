//! serde's view of the parts of a value: fields, entries, items and variants.

use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::StrDeserializer,
};

use crate::{
    code,
    de::{Poison, fake::Fake, mistake::Mistake, reader::Reader},
    source::Span,
    tree::{Field, Kind, Value},
};

/// The fields of a record, then those that are missing and have to be invented.
pub struct Fields<'de> {
    fields: Vec<&'de Field>,
    missing: Vec<&'static str>,
    poison: &'de Poison,
}

impl<'de> Fields<'de> {
    /// Leaves out the fields that nobody knows.
    pub fn new(record: Span, fields: &'de [Field], poison: &'de Poison) -> Self {
        let missing = poison.missing(record).collect();
        let fields = fields.iter().rev().filter(|field| !poison.has(field.name.span));
        Fields { fields: fields.collect(), missing, poison }
    }
}

fn name_of(name: &str) -> StrDeserializer<'_, Mistake> {
    name.into_deserializer()
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        match (self.fields.last(), self.missing.last()) {
            (Some(field), _) => {
                let key = seed.deserialize(name_of(&field.name.text));
                key.map(Some).map_err(|mistake| mistake.at_name(field.name.span))
            }
            (None, Some(name)) => seed.deserialize(name_of(name)).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        match self.fields.pop() {
            Some(field) => self.poison.give(seed, &field.value),
            None => {
                self.missing.pop();
                seed.deserialize(Fake::default())
            }
        }
    }
}

/// The entries of a map.
pub struct Entries<'de> {
    entries: std::slice::Iter<'de, (Value, Value)>,
    value: Option<&'de Value>,
    poison: &'de Poison,
}

impl<'de> Entries<'de> {
    /// All entries, in the order of the file.
    pub fn new(entries: &'de [(Value, Value)], poison: &'de Poison) -> Self {
        Entries { entries: entries.iter(), value: None, poison }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        self.poison.give(seed, key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let value = self.value.take().expect("serde asks for a value after its key");
        self.poison.give(seed, value)
    }
}

/// The items of a list or tuple.
pub struct Items<'de> {
    items: std::slice::Iter<'de, Value>,
    poison: &'de Poison,
}

impl<'de> Items<'de> {
    /// All items, in order.
    pub fn new(items: &'de [Value], poison: &'de Poison) -> Self {
        Items { items: items.iter(), poison }
    }
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        self.items.next().map(|item| self.poison.give(seed, item)).transpose()
    }
}

/// A variant and what stands in its parentheses.
pub struct Variant<'de> {
    /// Name of the variant, which may be implied.
    pub name: &'de str,
    /// Where the name stands.
    pub span: Span,
    /// The value that carries the name.
    pub reader: Reader<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Mistake> {
        match seed.deserialize(name_of(self.name)) {
            Ok(value) => Ok((value, self)),
            Err(mistake) => Err(mistake.shown(self.span)),
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        match &self.reader.value.kind {
            Kind::Record { fields, .. } if fields.is_empty() => Ok(()),
            _ => {
                let message = format!("`{}` takes no values", self.name);
                let hint = format!("write {}", self.name);
                Err(Mistake::other(code::TYPE, message, &hint).at(self.reader.value))
            }
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mistake> {
        match &self.reader.value.kind {
            Kind::Tuple { items, .. } if items.len() == 1 => {
                self.reader.poison.give(seed, &items[0])
            }
            _ => seed.deserialize(Reader { inner: true, ..self.reader }),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Mistake> {
        Reader { inner: true, ..self.reader }.items(count, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        Reader { inner: true, ..self.reader }.fields(self.name, fields, visitor)
    }
}
