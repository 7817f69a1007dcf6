//! `spec.limits`.

use pillion_wire::resilience::Limits;
use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    connections: Option<u32>,
    requests: Option<u32>,
    retries: Option<u32>,
    pending: Option<u32>,
    pending_timeout: Option<Written>,
    per_endpoint: Option<RawEndpoint>,
}

#[derive(Default, Deserialize)]
struct RawEndpoint {
    connections: Option<u32>,
    requests: Option<u32>,
}

/// Requests that may wait, at most: a longer queue answers nobody in time.
const MOST_PENDING: u32 = 100_000;

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> Limits {
    let endpoint = raw.per_endpoint.unwrap_or_default();
    let pending = raw.pending.unwrap_or_default();
    if pending > MOST_PENDING {
        issues.error(path.key("pending"), format!("a queue has at most {MOST_PENDING} places"));
    }
    if pending > 0 && raw.requests.or(raw.connections).is_none() {
        issues.error(path.key("pending"), "nothing waits without a limit on requests or connections");
    }
    let pending_timeout = raw.pending_timeout.map_or(Limits::PENDING_TIMEOUT, |written| written.0);
    if pending_timeout.is_zero() {
        issues.error(path.key("pendingTimeout"), "nothing waits for no time: write `pending: 0`");
    }
    Limits {
        connections: raw.connections,
        requests: raw.requests,
        retries: raw.retries,
        pending,
        pending_timeout,
        endpoint_connections: endpoint.connections,
        endpoint_requests: endpoint.requests,
    }
}
