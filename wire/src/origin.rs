//! Which object, and which line of which document, something in a resource comes from.
//!
//! In the metadata of routes, of outbound listeners and of inbound filter chains, for our own sidecars only: what they
//! decide they explain by it. Clusters and endpoints carry none. What is said of a backend stands with the routes that
//! lead there, so that an edit that only moves lines sends no cluster again.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Key in `filter_metadata` of a `Route`, a `Listener` and an inbound `FilterChain`. See [`Origins`].
pub const ORIGIN_METADATA: &str = "pillion.dev/origin";

/// A field of an object. Its text is `KIND NAMESPACE/NAME FIELD FILE:LINE`, the field `-` when the whole object is meant,
/// without the last word where there is no file (Kubernetes).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Origin {
    /// Kind, namespace and name: `HTTPRoute shop/orders`.
    pub object: Arc<str>,
    /// The field, as `spec.rules[0]`; empty for the object as a whole.
    pub field: String,
    /// The file, relative to the directory of documents; empty where there is none.
    pub file: Arc<str>,
    /// The line in it, from 1; 0 where there is none.
    pub line: u64,
}

/// What a route, a destination or an inbound port comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Origins {
    /// The Service, or the Workload of an inbound port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Origin>,
    /// The rule of a route object. `None`: no route is attached, everything goes to the Service itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Origin>,
    /// Sections of policies that hold here, as documents name them: `timeouts`, `retries`, `rateLimits`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sections: BTreeMap<String, Origin>,
    /// The same for other clusters that traffic may go to, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub backends: BTreeMap<String, BTreeMap<String, Origin>>,
}

impl Origins {
    /// Where the section `name` comes from that holds for `cluster`.
    #[must_use]
    pub fn section(&self, name: &str, cluster: &str) -> Option<&Origin> {
        match self.backends.get(cluster) {
            Some(own) => own.get(name),
            None => self.sections.get(name),
        }
    }
}

impl Origin {
    /// `FILE:LINE`; `None` where there is no file.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        (!self.file.is_empty()).then(|| format!("{}:{}", self.file, self.line))
    }
}

impl fmt::Display for Origin {
    /// For people: `HTTPRoute shop/orders spec.rules[0] (shop.yaml:12)`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.object)?;
        if !self.field.is_empty() {
            write!(formatter, " {}", self.field)?;
        }
        match self.place() {
            Some(place) => write!(formatter, " ({place})"),
            None => Ok(()),
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        let field = if origin.field.is_empty() { "-" } else { &origin.field };
        match origin.place() {
            Some(place) => format!("{} {field} {place}", origin.object),
            None => format!("{} {field}", origin.object),
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let wrong = || OriginError(crate::text::excerpt(text));
        let mut words = text.splitn(4, ' ');
        let (kind, name, field) = (words.next(), words.next(), words.next());
        let (Some(kind), Some(name), Some(field)) = (kind, name, field) else { return Err(wrong()) };
        if kind.is_empty() || name.is_empty() || field.is_empty() {
            return Err(wrong());
        }
        let (file, line) = match words.next() {
            None => ("", 0),
            Some(place) => {
                let (file, line) = place.rsplit_once(':').ok_or_else(wrong)?;
                let line = line.parse().map_err(|_no_line| wrong())?;
                (if file.is_empty() { None } else { Some(file) }.ok_or_else(wrong)?, line)
            }
        };
        let field = if field == "-" { String::new() } else { field.to_owned() };
        Ok(Self { object: format!("{kind} {name}").into(), field, file: file.into(), line })
    }
}

/// Text that is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form KIND NAMESPACE/NAME FIELD FILE:LINE")]
pub struct OriginError(String);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn origins_round_trip(
            name in "[a-z]{1,9}/[a-z]{1,9}", field in "(spec(\\.[a-z]{1,9}(\\[[0-9]\\])?){0,3})?",
            file in "([a-z][a-z :/.]{0,20}\\.yaml)?", line in 1u64..,
        ) {
            let line = if file.is_empty() { 0 } else { line };
            let origin = Origin { object: format!("HTTPRoute {name}").into(), field, file: file.into(), line };
            prop_assert_eq!(String::from(origin.clone()).parse(), Ok(origin));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(origin) = text.parse::<Origin>() {
                prop_assert_eq!(String::from(origin.clone()).parse(), Ok(origin));
            }
        }
    }
}
