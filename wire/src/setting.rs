//! Single settings of ours for which Envoy has no field, as metadata of the resource that they concern: one `Struct` under
//! [`KEY`], one field of it per setting.
//!
//! Envoy and gRPC pass over metadata of a key that they do not know.

use crate::xds::core::Metadata;
use crate::xds::{Value, value::Kind};

/// Key in `filter_metadata` of a `Route` or `Cluster`.
pub const KEY: &str = "pillion.dev";

/// Field of a `Route`: false means that calls are neither limited nor cancelled by the request that they belong to.
pub const JOIN_TRACE: &str = "joinTrace";

/// Field of a `Cluster`: retries in a second that are allowed whatever the share of retries is (beside Envoy's
/// `retry_budget.budget_percent`).
pub const RETRIES_PER_SECOND: &str = "retryBudgetMinPerSecond";

/// Field of a `Route`: seconds after which a session ends, however busy it is (beside the filter
/// `envoy.filters.http.stateful_session`, which has the lifetime of a cookie only).
pub const SESSION_ABSOLUTE: &str = "sessionAbsoluteSeconds";

/// Field of a `Route`: seconds without a request after which a session ends.
pub const SESSION_IDLE: &str = "sessionIdleSeconds";

/// Sets a field, keeping the others.
pub fn set(metadata: &mut Option<Metadata>, field: &str, kind: Kind) {
    let all = &mut metadata.get_or_insert_default().filter_metadata;
    let ours = all.entry(KEY.to_owned()).or_default();
    ours.fields.insert(field.to_owned(), Value { kind: Some(kind) });
}

/// The value of a field, if there is one.
#[must_use]
pub fn get<'a>(metadata: Option<&'a Metadata>, field: &str) -> Option<&'a Kind> {
    metadata?.filter_metadata.get(KEY)?.fields.get(field)?.kind.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_beside_each_other() {
        let mut metadata = None;
        set(&mut metadata, JOIN_TRACE, Kind::BoolValue(false));
        set(&mut metadata, RETRIES_PER_SECOND, Kind::NumberValue(3.0));
        assert_eq!(get(metadata.as_ref(), JOIN_TRACE), Some(&Kind::BoolValue(false)));
        assert_eq!(get(metadata.as_ref(), RETRIES_PER_SECOND), Some(&Kind::NumberValue(3.0)));
        assert_eq!(get(metadata.as_ref(), "other"), None);
        assert_eq!(get(None, JOIN_TRACE), None);
    }
}
