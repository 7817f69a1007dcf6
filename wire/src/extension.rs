//! What xDS has no field for: plain types as a `google.protobuf.Struct` under a key of our own in the metadata of a
//! resource, where gRPC clients and Envoy pass over it.

use std::collections::HashMap;

use serde::{Serialize, de::DeserializeOwned};

use crate::xds::core::Metadata;
use crate::xds::{Struct, Value, value::Kind};

/// Puts `content` into `metadata` under `key`, in place of what was there.
///
/// Numbers are JSON's: whole ones up to 2^53 come back as they were. Fields are encoded in no particular order: see
/// [`crate::xds`] before hashing them. A type that is no JSON object is left out.
pub fn put(metadata: &mut Metadata, key: &str, content: &impl Serialize) {
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(content) {
        metadata.filter_metadata.insert(key.to_owned(), structure(fields));
    }
}

/// What is in `metadata` under `key`, if anything.
///
/// # Errors
/// When it is there and no `T`; or typed, which would take precedence in Envoy.
pub fn get<T: DeserializeOwned>(metadata: &Metadata, key: &'static str) -> Result<Option<T>, ExtensionError> {
    if metadata.typed_filter_metadata.contains_key(key) {
        return Err(ExtensionError { key, reason: "typed metadata is not read".to_owned() });
    }
    let Some(found) = metadata.filter_metadata.get(key) else { return Ok(None) };
    let content = serde_json::from_value(object(found)).map(Some);
    content.map_err(|error| ExtensionError { key, reason: error.to_string() })
}

/// Metadata under one of our keys that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata {key}: {reason}")]
pub struct ExtensionError {
    key: &'static str,
    reason: String,
}

fn structure(fields: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, content)| (key, value(content))).collect::<HashMap<_, _>>() }
}

fn value(content: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match content {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(crate::xds::ListValue { values: items.into_iter().map(value).collect() }),
        Json::Object(fields) => Kind::StructValue(structure(fields)),
    };
    Value { kind: Some(kind) }
}

fn object(found: &Struct) -> serde_json::Value {
    found.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect::<serde_json::Map<_, _>>().into()
}

fn json(value: &Value) -> serde_json::Value {
    /// Beyond, not every whole number is a double.
    const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        #[expect(clippy::cast_possible_truncation, reason = "it is a whole number below 2^53")]
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < MOST_WHOLE => {
            (*number as i64).into()
        }
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(fields)) => object(fields),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        number: u64,
        share: f64,
        list: Vec<Option<bool>>,
    }

    const KEY: &str = "pillion.dev/sample";

    #[test]
    fn what_is_put_is_got() {
        let sample = Sample { name: "a".to_owned(), number: 1 << 52, share: 0.5, list: vec![Some(true), None] };
        let mut metadata = Metadata::default();
        put(&mut metadata, KEY, &sample);
        assert_eq!(get(&metadata, KEY), Ok(Some(sample)));
        assert_eq!(get::<Sample>(&Metadata::default(), KEY), Ok(None));
    }

    #[test]
    fn what_is_something_else_is_refused() {
        let mut metadata = Metadata::default();
        put(&mut metadata, KEY, &serde_json::json!({ "name": "a", "number": -1, "share": 1, "list": [] }));
        let refused = get::<Sample>(&metadata, KEY).unwrap_err().to_string();
        assert!(refused.starts_with("metadata pillion.dev/sample: "), "{refused}");
        put(&mut metadata, KEY, &serde_json::json!({ "name": "a", "number": 1, "share": 1, "list": [], "more": 1 }));
        assert!(get::<Sample>(&metadata, KEY).unwrap_err().to_string().contains("more"));
    }
}
