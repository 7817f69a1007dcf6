//! How long things may take.

use std::time::Duration;

/// `spec.timeouts`. What is `None` has no limit, unless a default is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP and TLS set-up of one connection to an endpoint (`Cluster.connect_timeout`); 5 s when `None`.
    pub connect: Option<Duration>,
    /// From the receipt of a request to the end of its response, over all tries (`RouteAction.timeout`); zero is none.
    pub request: Option<Duration>,
    /// From the choice of an endpoint to the head of its response (`RetryPolicy.per_try_timeout`).
    pub per_try: Option<Duration>,
    /// How long a connection to an endpoint rests before it is closed (`HttpProtocolOptions`, `idle_timeout`).
    pub idle: Option<Duration>,
    /// A stream without a byte either way (`RouteAction.idle_timeout`, `TcpProxy.idle_timeout`).
    pub stream_idle: Option<Duration>,
    /// A stream from its first byte to its last (`RouteAction.max_stream_duration`,
    /// `TcpProxy.max_downstream_connection_duration`).
    pub max_duration: Option<Duration>,
    /// After which, and up to a tenth more by chance, a connection takes no more requests
    /// (`HttpProtocolOptions.max_connection_duration`): those of callers to endpoints, and those from outside the mesh.
    pub connection_age: Option<Duration>,
    /// Are calls limited and cancelled by the inbound request that they belong to? As if true when `None`.
    pub join_trace: Option<bool>,
}
