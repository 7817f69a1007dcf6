//! The path of a field inside an object, as `kubectl` prints it:
//! `spec.rules[0].backendRefs[1].weight`.

use std::{borrow::Cow, fmt, str::FromStr};

/// Where in an object a complaint belongs. The empty path is the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Into a mapping.
    Key(Cow<'static, str>),
    /// Into a list, from 0.
    Index(usize),
}

impl FieldPath {
    /// The object itself.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The steps from the object inwards.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The path of `key` below this one.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        self.with(Segment::Key(key.into()))
    }

    /// The path of item `index` of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// Puts `segment` before the first step: used while unwinding from the inside.
    pub fn prepend(&mut self, segment: Segment) {
        self.0.insert(0, segment);
    }

    /// Whether this path lies in the field `key` of some mapping, at any depth.
    #[must_use]
    pub fn passes(&self, key: &str) -> bool {
        self.0.iter().any(|segment| matches!(segment, Segment::Key(name) if name == key))
    }

    /// The keys alone, indices left out: `spec.rules.matches`.
    #[must_use]
    pub fn shape(&self) -> String {
        let keys: Vec<&str> = self
            .0
            .iter()
            .filter_map(|segment| match segment {
                Segment::Key(key) => Some(&**key),
                Segment::Index(_) => None,
            })
            .collect();
        keys.join(".")
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if is_plain(key) => {
                    if position > 0 {
                        formatter.write_str(".")?;
                    }
                    formatter.write_str(key)?;
                }
                Segment::Key(key) => write!(formatter, "[{key:?}]")?,
                Segment::Index(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A path that is not written as [`FieldPath`] writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a field path such as `spec.ports[0].name`")]
pub struct PathError(String);

impl FromStr for FieldPath {
    type Err = PathError;

    /// Reads the form without quoted keys, which is what code writes.
    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut segments = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, indices) = part.split_once('[').map_or((part, ""), |(key, rest)| (key, rest));
            if !key.is_empty() {
                segments.push(Segment::Key(Cow::Owned(key.to_owned())));
            }
            for index in indices.split('[').filter(|index| !index.is_empty()) {
                let number = index
                    .strip_suffix(']')
                    .and_then(|digits| digits.parse().ok())
                    .ok_or_else(|| PathError(text.to_owned()))?;
                segments.push(Segment::Index(number));
            }
        }
        Ok(Self(segments))
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::{collection::vec, prelude::*};

    fn segment() -> impl Strategy<Value = Segment> {
        prop_oneof![
            "[a-zA-Z][a-zA-Z0-9_-]{0,8}".prop_map(|key| Segment::Key(Cow::Owned(key))),
            (0usize..20).prop_map(Segment::Index),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            first in "[a-z]{1,8}",
            rest in vec(segment(), 0..6),
        ) {
            let mut segments = vec![Segment::Key(Cow::Owned(first))];
            segments.extend(rest);
            let path = FieldPath(segments);
            prop_assert_eq!(path.to_string().parse::<FieldPath>().unwrap(), path);
        }
    }

    #[test]
    fn keys_with_dots_are_quoted() {
        let path = FieldPath::root().key("metadata").key("labels").key("a.b/c");
        assert_eq!(path.to_string(), r#"metadata.labels["a.b/c"]"#);
    }
}
