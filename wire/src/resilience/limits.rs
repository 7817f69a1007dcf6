//! How much a caller may have under way.

use std::time::Duration;

use super::{LIMITS_METADATA, millis, number, object};
use crate::mesh::{MeshError, ours};
use crate::xds::Struct;
use crate::xds::core::Metadata;

/// How much a caller may have under way (bulkheads). `None`: no limit, unlike Envoy, whose default is 1024 (3 retries).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// TCP connections and `CONNECT` tunnels to the destination (`CircuitBreakers.Thresholds.max_connections`).
    pub connections: Option<u32>,
    /// HTTP requests in flight, upgraded connections included (`max_requests`).
    pub requests: Option<u32>,
    /// Retries in flight (`max_retries`).
    pub retries: Option<u32>,
    /// Requests and connections that may wait for a place (`max_pending_requests`); default 0: none waits.
    pub pending: u32,
    /// How long they wait at most.
    pub pending_timeout: Duration,
    /// TCP connections to one endpoint (`per_host_thresholds.max_connections`).
    pub endpoint_connections: Option<u32>,
    /// HTTP requests in flight to one endpoint. Envoy has none.
    pub endpoint_requests: Option<u32>,
}

impl Limits {
    /// Default of [`Self::pending_timeout`].
    pub const PENDING_TIMEOUT: Duration = Duration::from_secs(1);

    /// The metadata beyond Envoy's fields.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        let mut fields = vec![("pendingTimeoutMs", millis(self.pending_timeout))];
        fields.extend(self.endpoint_requests.map(|limit| ("endpointRequests", number(limit))));
        object(fields)
    }

    /// Takes over what the metadata says.
    ///
    /// # Errors
    /// When a field is there that is no whole number.
    pub fn extend(&mut self, metadata: &Metadata) -> Result<(), MeshError> {
        let Some(fields) = ours(metadata, LIMITS_METADATA)? else { return Ok(()) };
        self.pending_timeout = fields.millis("pendingTimeoutMs")?.unwrap_or(self.pending_timeout);
        self.endpoint_requests = fields.integer("endpointRequests")?;
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            requests: None,
            retries: None,
            pending: 0,
            pending_timeout: Self::PENDING_TIMEOUT,
            endpoint_connections: None,
            endpoint_requests: None,
        }
    }
}
