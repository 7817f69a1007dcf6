//! A YAML document as a tree in which every value knows its line.
//!
//! Objects are deserialised from this tree rather than from the text, so that
//! each later complaint, about a type or about a meaning, can name the line and
//! the path of the field it concerns.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::path::{FieldPath, Segment};

/// A value and the line where it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line in the file, starting at 1.
    pub line: u64,
    /// What stands there.
    pub value: Value,
}

/// What a YAML node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file.
    Mapping(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Line of the key.
    pub line: u64,
    /// The value.
    pub node: Node,
}

impl Node {
    /// Parses one document whose first line is line `first_line` of its file.
    ///
    /// # Errors
    ///
    /// When the text is not YAML, or is more deeply nested or more heavily
    /// aliased than the parser allows. The line is that of the file.
    pub fn parse(text: &str, first_line: u64) -> Result<Self, SyntaxError> {
        // Only `true` and `false` are booleans: a label `y` or `no` is text, as in YAML 1.2.
        let options = serde_saphyr::options! { strict_booleans: true };
        let spanned: Spanned<Raw> =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| SyntaxError {
                line: first_line + error.location().map_or(0, |at| at.line().saturating_sub(1)),
                reason: one_line(&error),
            })?;
        Ok(Self::from_raw(spanned, first_line.saturating_sub(1)))
    }

    /// The value under `key`, when this is a mapping that has it.
    #[must_use]
    pub fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The text of this node, when it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The line of the field at `path`, or of its nearest ancestor that exists.
    #[must_use]
    pub fn line_of(&self, path: &FieldPath) -> u64 {
        let mut node = self;
        let mut line = self.line;
        for segment in path.segments() {
            let next = match (segment, &node.value) {
                (Segment::Key(key), Value::Mapping(entries)) => {
                    entries.iter().find(|entry| entry.key == **key).map(|entry| (entry.line, &entry.node))
                }
                (Segment::Index(index), Value::Sequence(items)) => items.get(*index).map(|item| (item.line, item)),
                _ => None,
            };
            let Some((found, child)) = next else { break };
            line = found;
            node = child;
        }
        line
    }

    /// Whether the document holds nothing at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    fn from_raw(spanned: Spanned<Raw>, offset: u64) -> Self {
        let line = spanned.referenced.line() + offset;
        let value = match spanned.value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Integer(value) => Value::Integer(value),
            Raw::Float(value) => Value::Float(value),
            Raw::String(value) => Value::String(value),
            Raw::Sequence(items) => {
                Value::Sequence(items.into_iter().map(|item| Self::from_raw(item, offset)).collect())
            }
            Raw::Mapping(entries) => Value::Mapping(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry {
                        line: key.referenced.line() + offset,
                        key: key.value,
                        node: Self::from_raw(value, offset),
                    })
                    .collect(),
            ),
        };
        Self { line, value }
    }
}

/// Text that is not YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: not YAML: {reason}")]
pub struct SyntaxError {
    /// Line of the file.
    pub line: u64,
    /// What the parser met.
    pub reason: String,
}

/// The parser's message without its picture of the source.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The tree as serde builds it, with the parser's own positions.
enum Raw {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Sequence(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Raw, E> {
        i64::try_from(value).map(Raw::Integer).map_err(|_| E::custom(format_args!("{value} is too large a number")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries: Vec<(Spanned<String>, Spanned<Raw>)> = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            if entries.iter().any(|(seen, _)| seen.value == key.value) {
                return Err(A::Error::custom(format_args!("duplicate key `{}`", key.value)));
            }
            let value = access.next_value()?;
            entries.push((key, value));
        }
        Ok(Raw::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let node = Node::parse("a: 1\nb:\n  c:\n  - x\n  - y: z\n", 10).unwrap();
        let line = |path: &str| node.line_of(&path.parse().unwrap());
        assert_eq!(line("a"), 10);
        assert_eq!(line("b.c"), 12);
        assert_eq!(line("b.c[0]"), 13);
        assert_eq!(line("b.c[1].y"), 14);
        assert_eq!(line("b.c[7].missing"), 12, "nearest ancestor");
    }

    #[test]
    fn a_syntax_error_names_the_line_of_the_file() {
        let error = Node::parse("a: 1\nb: [1, 2\nc: 3\n", 5).unwrap_err();
        assert!((6..=8).contains(&error.line), "{error}");
    }

    #[test]
    fn duplicate_keys_are_refused() {
        let error = Node::parse("a: 1\na: 2\n", 1).unwrap_err();
        assert!(error.reason.contains("duplicate"), "{error}");
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
        for (name, previous) in ('b'..='j').zip('a'..) {
            text.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{previous}"); 10].join(", ")));
        }
        assert!(Node::parse(&text, 1).is_err());
    }
}
