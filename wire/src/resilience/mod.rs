//! How a destination is protected from its callers, and callers from its endpoints: limits, breaker, outlier detection.
//!
//! One type for each, from document to proxy. What Envoy has fields for travels in them (`Cluster.circuit_breakers`,
//! `Cluster.outlier_detection`); the rest under our own keys in `Cluster.metadata.filter_metadata`, times in
//! milliseconds.

mod breaker;
mod fallback;
mod limits;
mod outlier;

pub use breaker::{Breaker, FailureRate, Failures};
pub use fallback::Fallback;
pub use limits::Limits;
pub use outlier::{FailurePercentage, Outlier, SuccessRate};

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::mesh::{Fields, MeshError};
use crate::xds::{ListValue, Struct, Value, value::Kind};

/// Key in `Cluster.metadata.filter_metadata` of what [`Limits`] have beyond Envoy's fields.
pub const LIMITS_METADATA: &str = "pillion.dev/limits";
/// Key in `Cluster.metadata.filter_metadata` of a [`Breaker`].
pub const BREAKER_METADATA: &str = "pillion.dev/breaker";
/// Key in `Cluster.metadata.filter_metadata` of what an [`Outlier`] detection has beyond Envoy's fields.
pub const OUTLIER_METADATA: &str = "pillion.dev/outlier";

/// Key in `Route.metadata.filter_metadata` of a [`Fallback`].
pub const FALLBACK_METADATA: &str = "pillion.dev/fallback";

fn number(number: u32) -> Kind {
    Kind::NumberValue(f64::from(number))
}

fn millis(duration: Duration) -> Kind {
    number(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
}

fn list(numbers: impl Iterator<Item = impl Into<u32>>) -> Kind {
    Kind::ListValue(ListValue { values: numbers.map(|one| Value { kind: Some(number(one.into())) }).collect() })
}

fn object(fields: Vec<(&str, Kind)>) -> Struct {
    let fields: HashMap<String, Value> =
        fields.into_iter().map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) })).collect();
    Struct { fields }
}

fn in_range(
    fields: &Fields<'_>,
    field: &'static str,
    number: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, MeshError> {
    if range.contains(&number) { Ok(number) } else { Err(fields.missing(field, "number in its range")) }
}

/// A whole number of 32 bits.
fn whole(number: f64) -> Option<u32> {
    let integer = number as u32;
    // A cast saturates and truncates, and makes 0 of NaN.
    (f64::from(integer).to_bits() == number.to_bits()).then_some(integer)
}

impl Fields<'_> {
    fn integer(&self, field: &'static str) -> Result<Option<u32>, MeshError> {
        match self.kind(field) {
            None => Ok(None),
            Some(Kind::NumberValue(number)) => {
                whole(*number).map(Some).ok_or_else(|| self.missing(field, "whole number"))
            }
            Some(_) => Err(self.missing(field, "whole number")),
        }
    }

    fn millis(&self, field: &'static str) -> Result<Option<Duration>, MeshError> {
        Ok(self.integer(field)?.map(|millis| Duration::from_millis(millis.into())))
    }

    fn boolean(&self, field: &'static str, default: bool) -> Result<bool, MeshError> {
        match self.kind(field) {
            None => Ok(default),
            Some(Kind::BoolValue(value)) => Ok(*value),
            Some(_) => Err(self.missing(field, "boolean")),
        }
    }

    fn numbers<T: TryFrom<u32> + Ord>(&self, field: &'static str) -> Result<Option<BTreeSet<T>>, MeshError> {
        let wrong = || self.missing(field, "list of whole numbers");
        let Some(kind) = self.kind(field) else { return Ok(None) };
        let Kind::ListValue(list) = kind else { return Err(wrong()) };
        let read = |value: &Value| match value.kind {
            Some(Kind::NumberValue(number)) => whole(number).and_then(|number| T::try_from(number).ok()),
            _ => None,
        };
        list.values.iter().map(|value| read(value).ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests;
