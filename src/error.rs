//! Why the proxy answered in the application's stead.
//!
//! One enum; each variant names whose fault it was. [`ProxyError`] alone knows the
//! status, Envoy's response flag, the stable reason code, and what gRPC clients are
//! told. The text is for our logs; a client gets [`ProxyError::public_message`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pillion_wire::name::Destination;
use pillion_wire::spiffe::SpiffeId;

/// A failure that ends a request or a connection.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    // The client.
    /// No `Host`, several of them, or one that is not an authority.
    #[error("the request does not say which host it is for: {0}")]
    BadAuthority(&'static str),
    /// The request cannot be forwarded as it stands.
    #[error("the request is malformed: {0}")]
    BadRequest(&'static str),
    /// A caller outside the mesh spoke plaintext to a strict port.
    #[error("plaintext from outside the mesh on strict port {0}; call through a sidecar, or make the port permissive")]
    PlaintextRefused(u16),
    /// A peer asked for a port that the workload does not have.
    #[error("this workload has no port {0}")]
    UnknownPort(String),
    /// Traffic for one of the sidecar's own ports, which would come back to it.
    #[error("port {0} is one of the sidecar's own: carrying traffic there would be a loop")]
    OwnPort(u16),
    /// A rate limit of this workload is used up.
    #[error("rate limit {name} is used up for this caller; try again in {retry_after:?}")]
    RateLimited {
        /// The limit.
        name: String,
        /// When another request might fit.
        retry_after: Duration,
    },
    /// A rate-limit service says that it is too much.
    #[error("the rate-limit service says that {} is used up for this caller", .0.name)]
    OverLimit(Box<OverLimit>),
    /// A rate-limit service did not say whether it is too much.
    #[error("the rate-limit service gave no answer, and the policy refuses requests then: {detail}")]
    RateLimitService {
        /// Answer to HTTP clients.
        status: StatusCode,
        /// Why there is none.
        detail: String,
    },
    /// Our application has as much under way as it can do.
    #[error("port {port} has as much under way as it can do; this request is {criticality} and was refused ({why})")]
    Shed {
        /// Its port.
        port: u16,
        /// How important the request is.
        criticality: &'static str,
        /// Why it was this one.
        why: &'static str,
    },
    /// The client went away.
    #[error("the client went away before the answer was there")]
    ClientGone,

    // Configuration.
    /// The control plane does not know the destination.
    #[error("{0} is not known to the control plane; check the name, or define a Service for it")]
    UnknownDestination(Destination),
    /// It knows it, but not for this kind of traffic.
    #[error("{0} does not take {1}; see the appProtocol of its Service port")]
    WrongProtocol(Destination, &'static str),
    /// No route of the destination matches.
    #[error("no route of {0} matches the request")]
    NoRoute(Destination),
    /// The chosen backend does not exist.
    #[error("route {0} points at a backend that does not exist or may not be used")]
    InvalidBackend(String),
    /// The control plane did not answer in time.
    #[error("the control plane did not say in time where {0} is")]
    DiscoveryTimeout(Destination),
    /// Too many new destinations at once.
    #[error("too many destinations; {0} was not looked up")]
    DiscoveryOverloaded(Destination),

    /// A route rewrites the path to something that is none.
    #[error("route {0} rewrites the path to what is no path")]
    BadRewrite(String),
    /// A fault was injected on purpose (policy `faults`).
    #[error("a fault was injected on purpose, by the policy `faults`")]
    Fault {
        /// Answer to HTTP clients.
        status: StatusCode,
        /// Answer to gRPC clients.
        grpc: u8,
    },

    // Upstream.
    /// No endpoint.
    #[error("cluster {0} has no endpoint that could be used")]
    NoHealthyUpstream(String),
    /// No name of the cluster has an address.
    #[error("{cluster} has no address: {name}: {why}")]
    NoAddress {
        /// Which cluster.
        cluster: String,
        /// Which of its names.
        name: String,
        /// What came of asking for it.
        why: String,
    },
    /// As much is under way as may be.
    #[error("the limit on {limit} of {cluster} is reached")]
    Overflow {
        /// Which cluster.
        cluster: String,
        /// Which of its limits.
        limit: &'static str,
    },
    /// No place became free in time.
    #[error("no place within the limit on {limit} of {cluster} became free in time")]
    PendingTimeout {
        /// Which cluster.
        cluster: String,
        /// Which of its limits.
        limit: &'static str,
    },
    /// All endpoints are left alone for what they did.
    #[error("the breakers of all endpoints of {0} are open")]
    BreakerOpen(String),
    /// The route is strict, and the endpoint of the session is gone or out of service.
    #[error("the endpoint of {0} that the session belongs to is gone or out of service")]
    SessionLost(String),
    /// TCP connection failed.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Address dialled.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TCP or TLS set-up took too long.
    #[error("connecting to {0} took too long")]
    ConnectTimeout(SocketAddr),
    /// TLS handshake failed.
    #[error("TLS with {address}, expected to be {expected}, failed: {source}")]
    UpstreamTls {
        /// Address dialled.
        address: SocketAddr,
        /// Who should have answered.
        expected: SpiffeId,
        /// Why.
        source: io::Error,
    },
    /// The connection was cut before the answer began.
    #[error("{address} cut the connection before it answered: {detail}")]
    UpstreamReset {
        /// Which host.
        address: SocketAddr,
        /// What the HTTP library saw.
        detail: String,
    },
    /// A kept connection was closed by the host just as it was used again, and the request is not safe to repeat.
    #[error("{0} closed an idle connection as it was used again; the request is not safe to repeat")]
    IdleRace(SocketAddr),
    /// The answer was not valid HTTP.
    #[error("{address} did not answer in valid HTTP: {detail}")]
    UpstreamProtocol {
        /// Which host.
        address: SocketAddr,
        /// What the HTTP library saw.
        detail: String,
    },
    /// The host says that it did not look at the request, however often it is asked.
    #[error("{0} refuses the request unseen")]
    UpstreamRefused(SocketAddr),
    /// The request took longer than its route allows.
    #[error("no complete answer within the time that the route allows")]
    RequestTimeout,
    /// One try took longer than the route allows.
    #[error("no answer within the time that the route allows for one try")]
    TryTimeout,
    /// The request that this call belongs to has no time left.
    #[error("the request that this call belongs to has no time left")]
    CallerDeadline,
    /// The stream lived longer than its route allows.
    #[error("the stream lives longer than the route allows")]
    MaxDuration,
    /// No byte came or went for too long.
    #[error("nothing was said on the stream for longer than the route allows")]
    StreamIdle,
    /// The client of the request that this call belongs to went away.
    #[error("the client of the request that this call belongs to went away")]
    CallerGone,
    /// The peer's sidecar refused a tunnel.
    #[error("the sidecar at {address} refused the tunnel with status {status}")]
    TunnelRefused {
        /// Which host.
        address: SocketAddr,
        /// What it answered.
        status: StatusCode,
    },

    // Us.
    /// No certificate yet.
    #[error("this sidecar has no certificate yet")]
    NoIdentity,
    /// Stopping, and new work is not taken.
    #[error("this sidecar is stopping")]
    Draining,
    /// Copying bytes of a tunnel failed.
    #[error("copying failed: {0}")]
    Io(#[from] io::Error),
}

/// What a rate-limit service has against a request.
#[derive(Debug)]
pub struct OverLimit {
    /// The limit that is used up, or the domain when it has no name.
    pub name: String,
    /// When another request might fit.
    pub retry_after: Option<Duration>,
    /// Answer to HTTP clients.
    pub status: StatusCode,
    /// Are gRPC clients told RESOURCE_EXHAUSTED? Else UNAVAILABLE.
    pub resource_exhausted: bool,
    /// Fields of the answer.
    pub fields: HeaderMap,
    /// Body of the answer; empty: a word of ours.
    pub body: Bytes,
}

/// The outside of a [`ProxyError`]: what dashboards, runbooks and clients rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable code, in the header `x-pillion-reason`, the access log and metrics.
    pub code: &'static str,
    /// Envoy's response flag.
    pub flag: &'static str,
    /// HTTP status.
    pub status: StatusCode,
    /// `grpc-status` (gRPC's own mapping would say the same of most, see `doc/statuscodes.md`).
    pub grpc: u8,
}

const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNKNOWN: u8 = 2;
const CANCELLED: u8 = 1;

impl ProxyError {
    /// Status, flag and code.
    pub fn reason(&self) -> Reason {
        let (code, flag, status, grpc) = match self {
            Self::BadAuthority(_) => ("bad_authority", "DPE", StatusCode::BAD_REQUEST, INVALID_ARGUMENT),
            Self::BadRequest(_) => ("bad_request", "DPE", StatusCode::BAD_REQUEST, INVALID_ARGUMENT),
            Self::PlaintextRefused(_) => ("plaintext_refused", "UAEX", StatusCode::FORBIDDEN, PERMISSION_DENIED),
            Self::UnknownPort(_) => ("unknown_port", "NR", StatusCode::NOT_FOUND, UNIMPLEMENTED),
            Self::OwnPort(_) => ("own_port", "NR", StatusCode::LOOP_DETECTED, PERMISSION_DENIED),
            Self::RateLimited { .. } => ("rate_limited", "RL", StatusCode::TOO_MANY_REQUESTS, RESOURCE_EXHAUSTED),
            Self::OverLimit(over) => {
                let grpc = if over.resource_exhausted { RESOURCE_EXHAUSTED } else { UNAVAILABLE };
                ("over_limit", "RL", over.status, grpc)
            }
            // To gRPC as Envoy says it, which has no better word for its 500.
            Self::RateLimitService { status, .. } => ("rate_limit_service", "RLSE", *status, UNKNOWN),
            Self::Shed { .. } => ("shed", "UO", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::ClientGone => ("client_gone", "DC", client_closed_request(), CANCELLED),
            Self::UnknownDestination(_) => ("unknown_destination", "NC", StatusCode::BAD_GATEWAY, UNAVAILABLE),
            Self::WrongProtocol(..) => ("wrong_protocol", "NR", StatusCode::BAD_GATEWAY, UNIMPLEMENTED),
            Self::NoRoute(_) => ("no_route", "NR", StatusCode::NOT_FOUND, UNIMPLEMENTED),
            Self::InvalidBackend(_) => ("invalid_backend", "NC", StatusCode::INTERNAL_SERVER_ERROR, UNAVAILABLE),
            Self::DiscoveryTimeout(_) => ("discovery_timeout", "NC", StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Self::DiscoveryOverloaded(_) => {
                ("discovery_overloaded", "NC", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE)
            }
            Self::BadRewrite(_) => ("bad_rewrite", "NR", StatusCode::INTERNAL_SERVER_ERROR, INTERNAL),
            Self::Fault { status, grpc } => ("fault", "FI", *status, *grpc),
            Self::NoHealthyUpstream(_) => ("no_healthy_upstream", "UH", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::NoAddress { .. } => ("dns_failure", "DF", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::Overflow { .. } => ("overflow", "UO", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::PendingTimeout { .. } => ("pending_timeout", "UO", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::BreakerOpen(_) => ("breaker_open", "UH", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::SessionLost(_) => ("session_lost", "UH", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::Connect { .. } => ("connect_failure", "UF", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::ConnectTimeout(_) => ("connect_timeout", "UF", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::UpstreamTls { .. } => ("tls_failure", "UF", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::UpstreamReset { .. } => ("upstream_reset", "UC", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::IdleRace(_) => ("idle_race", "UC", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::UpstreamProtocol { .. } => ("upstream_protocol", "UPE", StatusCode::BAD_GATEWAY, INTERNAL),
            Self::UpstreamRefused(_) => ("upstream_refused", "UR", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::RequestTimeout => ("request_timeout", "UT", StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Self::TryTimeout => ("try_timeout", "UT", StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Self::CallerDeadline => ("caller_deadline", "UT", StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Self::MaxDuration => ("max_duration", "UMSDR", StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Self::StreamIdle => ("stream_idle", "SI", StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Self::CallerGone => ("caller_gone", "DC", client_closed_request(), CANCELLED),
            Self::TunnelRefused { .. } => ("tunnel_refused", "UF", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::NoIdentity => ("no_identity", "UF", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::Draining => ("draining", "LH", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::Io(_) => ("io_error", "UC", StatusCode::BAD_GATEWAY, UNAVAILABLE),
        };
        Reason { code, flag, status, grpc }
    }

    /// True when nothing of the request has reached an application, so that another host may be tried.
    pub fn never_sent(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout(_) | Self::UpstreamTls { .. } | Self::OwnPort(_))
    }

    /// What the client is told: which kind of failure, not which addresses.
    pub fn public_message(&self) -> String {
        match self {
            Self::Connect { .. } => "cannot connect to the upstream host".to_owned(),
            Self::ConnectTimeout(_) => "connecting to the upstream host took too long".to_owned(),
            Self::UpstreamTls { .. } => "TLS with the upstream host failed".to_owned(),
            Self::UpstreamReset { .. } => "the upstream host cut the connection before it answered".to_owned(),
            Self::IdleRace(_) => "the upstream host closed an idle connection as it was used again".to_owned(),
            Self::UpstreamProtocol { .. } => "the upstream host did not answer in valid HTTP".to_owned(),
            Self::UpstreamRefused(_) => "the upstream host refuses the request unseen".to_owned(),
            Self::TunnelRefused { .. } => "the upstream sidecar refused the tunnel".to_owned(),
            Self::RateLimitService { .. } => "the rate-limit service gave no answer".to_owned(),
            Self::Io(_) => "copying failed".to_owned(),
            other => other.to_string(),
        }
    }
}

/// nginx's 499, which Envoy's logs show as 0: never sent to anybody, only logged.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}
