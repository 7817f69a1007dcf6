//! xDS v3 under short names: one line here for each message package that some
//! part of the mesh reads or writes.
//!
//! The messages are those of Envoy's data-plane API, compiled by the
//! `envoy-types` crate, whose paths are as deep as the proto packages. Only
//! this module names that crate. It also keeps the type URLs, by which
//! resources and extensions are told apart (xDS protocol, "Resource Types"),
//! and packs and unpacks [`Any`].
//!
//! Maps in these messages are hash maps, whose entries are encoded in an order
//! that differs from one value to the next: equal messages may have different
//! bytes. Compare messages, never their encodings; a version must be computed
//! from something else when a map may hold more than one entry.

use prost::{DecodeError, Message};

pub use envoy_types::pb::envoy::admin::v3 as admin;
pub use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
pub use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub use envoy_types::pb::envoy::config::core::v3 as core;
pub use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub use envoy_types::pb::envoy::config::listener::v3 as listener;
pub use envoy_types::pb::envoy::config::ratelimit::v3 as rate_limit_config;
pub use envoy_types::pb::envoy::config::rbac::v3 as rbac;
pub use envoy_types::pb::envoy::config::route::v3 as route;
pub use envoy_types::pb::envoy::extensions::clusters::common::dns::v3 as common_dns;
pub use envoy_types::pb::envoy::extensions::clusters::dns::v3 as dns_cluster;
pub use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as descriptor;
pub use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
pub use envoy_types::pb::envoy::extensions::filters::http::adaptive_concurrency::v3 as adaptive_concurrency;
pub use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as http_cors;
pub use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as http_fault;
pub use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3 as http_rate_limit;
pub use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_rbac;
pub use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
pub use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3 as http_session;
pub use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
pub use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3 as original_dst;
pub use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
pub use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3 as session_cookie;
pub use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3 as session_header;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3 as lb_common;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3 as least_request;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies::maglev::v3 as maglev;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3 as random;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3 as ring_hash;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3 as round_robin;
pub use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3 as wrr_locality;
pub use envoy_types::pb::envoy::extensions::network::dns_resolver::apple::v3 as apple_resolver;
pub use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3 as cares_resolver;
pub use envoy_types::pb::envoy::extensions::network::dns_resolver::getaddrinfo::v3 as getaddrinfo_resolver;
pub use envoy_types::pb::envoy::extensions::rate_limit_descriptors::expr::v3 as rate_limit_expr;
pub use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3 as previous_hosts;
pub use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer;
pub use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
pub use envoy_types::pb::envoy::service::ratelimit::v3 as rate_limit_service;
pub use envoy_types::pb::envoy::r#type::http::v3 as http_type;
pub use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub use envoy_types::pb::envoy::r#type::v3 as envoy_type;
pub use envoy_types::pb::google::protobuf as wkt;
pub use envoy_types::pb::google::protobuf::{
    Any, BoolValue, BytesValue, DoubleValue, Duration, Empty, FloatValue, Int32Value, Int64Value, ListValue, NullValue,
    StringValue, Struct, Timestamp, UInt32Value, UInt64Value, Value, value,
};
pub use envoy_types::pb::google::rpc;

/// The aggregated discovery service (xDS protocol, "Aggregated Discovery
/// Service"): delta and state-of-the-world streams that carry all resource
/// types.
pub mod discovery {
    pub use envoy_types::pb::envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        DynamicParameterConstraints, Resource, ResourceError, ResourceLocator, ResourceName,
        aggregated_discovery_service_client, aggregated_discovery_service_server, resource,
    };

    pub use self::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
    pub use self::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};
}

/// The load reporting service (LRS): what clients say of their traffic.
pub mod load_stats {
    pub use envoy_types::pb::envoy::config::endpoint::v3::{
        ClusterStats, EndpointLoadMetricStats, UpstreamEndpointStats, UpstreamLocalityStats, cluster_stats,
    };
    pub use envoy_types::pb::envoy::service::load_stats::v3::{
        LoadStatsRequest, LoadStatsResponse, load_reporting_service_client, load_reporting_service_server,
    };

    pub use self::load_reporting_service_client::LoadReportingServiceClient;
    pub use self::load_reporting_service_server::{LoadReportingService, LoadReportingServiceServer};
}

/// The client status discovery service (CSDS, gRFC A40): what configuration a
/// client holds, and in which state.
pub mod status {
    pub use envoy_types::pb::envoy::service::status::v3::{
        ClientConfig, ClientConfigStatus, ClientStatusRequest, ClientStatusResponse, ConfigStatus, PerXdsConfig,
        client_config, client_status_discovery_service_client, client_status_discovery_service_server, per_xds_config,
    };

    pub use self::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
    pub use self::client_status_discovery_service_server::{
        ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
    };
}

/// Type URLs of resources and of extensions.
///
/// `type.googleapis.com/` and the full name of the message, which is the only
/// form that xDS uses (xDS protocol, "Resource Types").
pub mod type_url {
    /// Resource: `envoy.config.listener.v3.Listener` (LDS).
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// Resource: `envoy.config.route.v3.RouteConfiguration` (RDS).
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    /// Resource: `envoy.config.cluster.v3.Cluster` (CDS).
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// Resource: `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// Resource: `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

    /// Network filter: the HTTP connection manager.
    pub const HCM: &str =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    /// Network filter: the TCP proxy.
    pub const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    /// HTTP filter: the router, which must be the last one (gRFC A39).
    pub const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    /// HTTP filter: a limit on requests in flight that is found by their latency.
    pub const ADAPTIVE_CONCURRENCY: &str =
        "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency";
    /// HTTP filter: cross-origin resource sharing. The filter itself says nothing; see [`CORS_POLICY`].
    pub const CORS: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
    /// What the filter [`CORS`] does on a route (`typed_per_filter_config`).
    pub const CORS_POLICY: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";
    /// HTTP filter, and what it does on a route: fault injection (gRFC A33).
    pub const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    /// HTTP filter: sessions stay on their endpoint (gRFC A55).
    pub const STATEFUL_SESSION: &str =
        "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
    /// What the filter [`STATEFUL_SESSION`] does on a route.
    pub const STATEFUL_SESSION_PER_ROUTE: &str =
        "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";
    /// How the filter [`STATEFUL_SESSION`] knows a session: by a cookie.
    pub const COOKIE_SESSION: &str =
        "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";
    /// The same: by a header.
    pub const HEADER_SESSION: &str =
        "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState";
    /// What wraps a filter's configuration on a route to switch it off or to make it optional (gRFC A39).
    pub const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
    /// HTTP filter: limits that a rate-limit service counts.
    pub const RATE_LIMIT: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit";
    /// What a rate limit tells requests apart by: an expression.
    pub const RATE_LIMIT_EXPR: &str = "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor";
    /// HTTP filter: role-based access control (gRFC A41).
    pub const HTTP_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

    /// Retry host predicate: hosts that have been tried are avoided.
    pub const PREVIOUS_HOSTS: &str =
        "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

    /// `Cluster.cluster_type`: hosts by name, as `STRICT_DNS` and `LOGICAL_DNS` but with its settings in one message.
    pub const DNS_CLUSTER: &str = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster";
    /// How Envoy asks for names: its default on macOS.
    pub const APPLE_RESOLVER: &str =
        "type.googleapis.com/envoy.extensions.network.dns_resolver.apple.v3.AppleDnsResolverConfig";
    /// How Envoy asks for names: by c-ares, its default.
    pub const CARES_RESOLVER: &str =
        "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
    /// How Envoy asks for names: by the C library.
    pub const GETADDRINFO_RESOLVER: &str =
        "type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig";
    /// Transport socket of a cluster: TLS (gRFC A29).
    pub const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    /// Transport socket of a filter chain: TLS (gRFC A29).
    pub const DOWNSTREAM_TLS: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    /// Transport socket: plaintext.
    pub const RAW_BUFFER: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

    /// Key and type of a cluster's HTTP versions, in
    /// `Cluster.typed_extension_protocol_options` (where the key has no
    /// `type.googleapis.com/`, see [`HTTP_PROTOCOL_OPTIONS_KEY`]).
    pub const HTTP_PROTOCOL_OPTIONS: &str =
        "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    /// Key of [`HTTP_PROTOCOL_OPTIONS`] in the map that holds it.
    pub const HTTP_PROTOCOL_OPTIONS_KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

    /// Listener filter of Envoy: detects HTTP.
    pub const HTTP_INSPECTOR: &str =
        "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    /// Listener filter of Envoy: finds where an intercepted connection went.
    pub const ORIGINAL_DST: &str = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    /// Listener filter of Envoy: detects TLS.
    pub const TLS_INSPECTOR: &str =
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

    /// Load-balancing policy: least request (gRFC A48).
    pub const LEAST_REQUEST: &str =
        "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
    /// Load-balancing policy: Maglev.
    pub const MAGLEV: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.maglev.v3.Maglev";
    /// Load-balancing policy: peak EWMA, an extension that only some builds of Envoy have. See [`super::PeakEwma`].
    pub const PEAK_EWMA: &str =
        "type.googleapis.com/envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma";
    /// Load-balancing policy: random.
    pub const RANDOM: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random";
    /// Load-balancing policy: ring hash (gRFC A42).
    pub const RING_HASH: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash";
    /// Load-balancing policy: round robin (gRFC A52).
    pub const ROUND_ROBIN: &str =
        "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
    /// Load-balancing policy: weighted round robin of localities (gRFC A52).
    pub const WRR_LOCALITY: &str =
        "type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality";
}

/// `envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma`, which `envoy-types` does not have: it belongs
/// to the extensions that Envoy keeps in its `contrib` folder. What tunes how its threads exchange samples is left out.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PeakEwma {
    /// How fast what was observed is forgotten; 10 s when absent.
    #[prost(message, optional, tag = "1")]
    pub decay_time: Option<Duration>,
    /// What is expected of a host that has not answered yet; 10 ms when absent.
    #[prost(message, optional, tag = "4")]
    pub default_rtt: Option<Duration>,
}

/// Packs a message under the type URL that names it, one of [`type_url`].
pub fn pack<M: Message>(url: &str, message: &M) -> Any {
    Any { type_url: url.to_owned(), value: message.encode_to_vec() }
}

/// Unpacks a message that must be of the type named by `url`.
///
/// # Errors
/// When `any` is of another type, or its bytes are not such a message.
pub fn unpack<M: Message + Default>(url: &str, any: &Any) -> Result<M, UnpackError> {
    if any.type_url != url {
        return Err(UnpackError::Type { wanted: url.to_owned(), found: crate::text::excerpt(&any.type_url) });
    }
    M::decode(any.value.as_slice()).map_err(|source| UnpackError::Decode { url: url.to_owned(), source })
}

/// Why an [`Any`] does not hold what was wanted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// It holds something else.
    #[error("found {found:?} where {wanted} was wanted")]
    Type {
        /// The type URL that was wanted.
        wanted: String,
        /// The type URL that was found.
        found: String,
    },
    /// Its bytes are not of the type that it claims.
    #[error("bytes under {url} do not decode: {source}")]
    Decode {
        /// The type URL of the message.
        url: String,
        /// What the decoder says.
        source: DecodeError,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Name;

    use super::*;

    /// The constants are typed by hand; the generated code knows them too.
    #[test]
    fn type_urls_are_those_of_the_messages() {
        for (constant, generated) in [
            (type_url::LISTENER, listener::Listener::type_url()),
            (type_url::ROUTE, route::RouteConfiguration::type_url()),
            (type_url::CLUSTER, cluster::Cluster::type_url()),
            (type_url::ENDPOINTS, endpoint::ClusterLoadAssignment::type_url()),
            (type_url::SECRET, tls::Secret::type_url()),
            (type_url::HCM, hcm::HttpConnectionManager::type_url()),
            (type_url::TCP_PROXY, tcp_proxy::TcpProxy::type_url()),
            (type_url::ROUTER, router::Router::type_url()),
            (type_url::HTTP_RBAC, http_rbac::Rbac::type_url()),
            (type_url::ADAPTIVE_CONCURRENCY, adaptive_concurrency::AdaptiveConcurrency::type_url()),
            (type_url::CORS, http_cors::Cors::type_url()),
            (type_url::CORS_POLICY, http_cors::CorsPolicy::type_url()),
            (type_url::FAULT, http_fault::HttpFault::type_url()),
            (type_url::STATEFUL_SESSION, http_session::StatefulSession::type_url()),
            (type_url::STATEFUL_SESSION_PER_ROUTE, http_session::StatefulSessionPerRoute::type_url()),
            (type_url::COOKIE_SESSION, session_cookie::CookieBasedSessionState::type_url()),
            (type_url::HEADER_SESSION, session_header::HeaderBasedSessionState::type_url()),
            (type_url::RATE_LIMIT, http_rate_limit::RateLimit::type_url()),
            (type_url::RATE_LIMIT_EXPR, rate_limit_expr::Descriptor::type_url()),
            (type_url::FILTER_CONFIG, route::FilterConfig::type_url()),
            (type_url::UPSTREAM_TLS, tls::UpstreamTlsContext::type_url()),
            (type_url::DOWNSTREAM_TLS, tls::DownstreamTlsContext::type_url()),
            (type_url::RAW_BUFFER, raw_buffer::RawBuffer::type_url()),
            (type_url::HTTP_PROTOCOL_OPTIONS, upstream_http::HttpProtocolOptions::type_url()),
            (type_url::HTTP_INSPECTOR, http_inspector::HttpInspector::type_url()),
            (type_url::ORIGINAL_DST, original_dst::OriginalDst::type_url()),
            (type_url::TLS_INSPECTOR, tls_inspector::TlsInspector::type_url()),
            (type_url::DNS_CLUSTER, dns_cluster::DnsCluster::type_url()),
            (type_url::APPLE_RESOLVER, apple_resolver::AppleDnsResolverConfig::type_url()),
            (type_url::CARES_RESOLVER, cares_resolver::CaresDnsResolverConfig::type_url()),
            (type_url::GETADDRINFO_RESOLVER, getaddrinfo_resolver::GetAddrInfoDnsResolverConfig::type_url()),
            (type_url::LEAST_REQUEST, least_request::LeastRequest::type_url()),
            (type_url::MAGLEV, maglev::Maglev::type_url()),
            (type_url::RANDOM, random::Random::type_url()),
            (type_url::RING_HASH, ring_hash::RingHash::type_url()),
            (type_url::ROUND_ROBIN, round_robin::RoundRobin::type_url()),
            (type_url::WRR_LOCALITY, wrr_locality::WrrLocality::type_url()),
        ] {
            assert_eq!(constant, generated);
        }
        assert_eq!(type_url::HTTP_PROTOCOL_OPTIONS_KEY, upstream_http::HttpProtocolOptions::full_name());
    }

    proptest! {
        #[test]
        fn messages_survive_packing(name in ".{0,20}", seconds in any::<i64>(), ignore in any::<bool>()) {
            let cluster = cluster::Cluster {
                name,
                connect_timeout: Some(Duration { seconds, nanos: 0 }),
                ignore_health_on_host_removal: ignore,
                ..cluster::Cluster::default()
            };
            let any = pack(type_url::CLUSTER, &cluster);
            prop_assert_eq!(unpack(type_url::CLUSTER, &any), Ok(cluster));
            let other = unpack::<listener::Listener>(type_url::LISTENER, &any);
            let is_type_error = matches!(other, Err(UnpackError::Type { .. }));
            prop_assert!(is_type_error);
        }

        #[test]
        fn arbitrary_bytes_are_unpacked_or_refused(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let type_url = type_url::LISTENER.to_owned();
            let any = Any { type_url, value };
            if let Err(error) = unpack::<listener::Listener>(type_url::LISTENER, &any) {
                let is_decode_error = matches!(error, UnpackError::Decode { .. });
                prop_assert!(is_decode_error);
            }
        }
    }
}
