//! From a [`Node`] to a Rust type, with serde.
//!
//! The deserialiser remembers where it is, so that an error names the field's
//! path and line, and it notes each field that the type does not know. What an
//! unknown field means is for the caller to say: harmless in one place, refused
//! where it would change the meaning of an object.

use std::{borrow::Cow, cell::RefCell, fmt::Display};

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor, value::StrDeserializer,
};
use serde::forward_to_deserialize_any;

use super::{
    path::{FieldPath, Segment},
    tree::{Entry, Node, Value},
};

/// A value of type `T` and the fields of the document that `T` does not have.
#[derive(Debug)]
pub struct Typed<T> {
    /// The value.
    pub value: T,
    /// Fields that were not read, in the order of the document.
    pub unknown: Vec<FieldPath>,
}

/// Reads `node` as a `T`.
///
/// # Errors
///
/// When a field has the wrong type, is missing or is refused by `T` itself.
pub fn typed<T: for<'de> Deserialize<'de>>(node: &Node) -> Result<Typed<T>, TypeError> {
    let context = Context::default();
    let value = T::deserialize(Reader { node, context: &context })?;
    Ok(Typed { value, unknown: context.unknown.into_inner() })
}

/// A document that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TypeError {
    /// The field.
    pub path: FieldPath,
    /// What is wrong with it.
    pub reason: String,
}

impl serde::de::Error for TypeError {
    fn custom<T: Display>(message: T) -> Self {
        Self { path: FieldPath::root(), reason: message.to_string() }
    }
}

impl TypeError {
    fn within(mut self, segment: Segment) -> Self {
        self.path.prepend(segment);
        self
    }
}

/// Where the reader stands, and what it has skipped.
#[derive(Default)]
struct Context {
    position: RefCell<Vec<Segment>>,
    unknown: RefCell<Vec<FieldPath>>,
}

impl Context {
    /// Runs `read` one step further in; an error comes back with that step.
    fn within<T>(&self, segment: &Segment, read: impl FnOnce() -> Result<T, TypeError>) -> Result<T, TypeError> {
        self.position.borrow_mut().push(segment.clone());
        let outcome = read();
        self.position.borrow_mut().pop();
        outcome.map_err(|error| error.within(segment.clone()))
    }

    fn note_unknown(&self) {
        let mut path = FieldPath::root();
        for segment in self.position.borrow().iter().rev() {
            path.prepend(segment.clone());
        }
        self.unknown.borrow_mut().push(path);
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    context: &'a Context,
}

impl<'a> Reader<'a> {
    fn at(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::Sequence(items) => visitor.visit_seq(Items { reader: self, items: items.iter().enumerate() }),
            Value::Mapping(entries) => {
                visitor.visit_map(Fields { reader: self, entries: entries.iter(), current: None })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match &self.node.value {
            Value::String(name) => visitor.visit_enum(UnitVariant(name)),
            other => Err(serde::de::Error::invalid_type(unexpected(other), &"one of the names of an enumeration")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.context.note_unknown();
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        let Some((index, item)) = self.items.next() else {
            return Ok(None);
        };
        let reader = self.reader.at(item);
        self.reader.context.within(&Segment::Index(index), || seed.deserialize(reader)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'a> {
    reader: Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypeError> {
        let Some(entry) = self.entries.next() else {
            return Ok(None);
        };
        self.current = Some(entry);
        let key: StrDeserializer<'_, TypeError> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.within(segment(entry)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TypeError> {
        let Some(entry) = self.current.take() else {
            return Err(serde::de::Error::custom("a value was asked for before its key"));
        };
        let reader = self.reader.at(&entry.node);
        self.reader.context.within(&segment(entry), || seed.deserialize(reader))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

fn segment(entry: &Entry) -> Segment {
    Segment::Key(Cow::Owned(entry.key.clone()))
}

struct UnitVariant<'a>(&'a str);

impl<'de> EnumAccess<'de> for UnitVariant<'de> {
    type Error = TypeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), TypeError> {
        let name: StrDeserializer<'_, TypeError> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for UnitVariant<'de> {
    type Error = TypeError;

    fn unit_variant(self) -> Result<(), TypeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, TypeError> {
        Err(no_content(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, TypeError> {
        Err(no_content(self.0))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, TypeError> {
        Err(no_content(self.0))
    }
}

fn no_content(name: &str) -> TypeError {
    serde::de::Error::custom(format_args!("`{name}` needs a value of its own"))
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Integer(value) => Unexpected::Signed(*value),
        Value::Float(value) => Unexpected::Float(*value),
        Value::String(value) => Unexpected::Str(value),
        Value::Sequence(_) => Unexpected::Seq,
        Value::Mapping(_) => Unexpected::Map,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use k8s_openapi::api::core::v1::Service;

    fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Result<Typed<T>, TypeError> {
        typed(&Node::parse(text, 1).unwrap())
    }

    #[test]
    fn a_core_service_is_read_whole() {
        let service: Service = read(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {x: y}}\n\
             spec: {selector: {app: a}, ports: [{port: 80, targetPort: http}, {port: 81, targetPort: 8081}]}\n",
        )
        .unwrap()
        .value;
        let spec = service.spec.unwrap();
        assert_eq!(spec.ports.unwrap().len(), 2);
    }

    #[test]
    fn a_wrong_type_names_the_field() {
        let error = read::<Service>("apiVersion: v1\nkind: Service\nspec:\n  ports:\n  - port: 80\n  - port: eighty\n")
            .unwrap_err();
        assert_eq!(error.path.to_string(), "spec.ports[1].port");
        assert!(error.reason.contains("eighty"), "{error}");
    }

    #[test]
    fn unknown_fields_are_noted() {
        let service =
            read::<Service>("apiVersion: v1\nkind: Service\nspec:\n  ports:\n  - port: 80\n    colour: red\n").unwrap();
        let unknown: Vec<String> = service.unknown.iter().map(ToString::to_string).collect();
        assert_eq!(unknown, ["spec.ports[0].colour"]);
    }
}
