//! What the control plane told us: plain, comparable, already validated.
//!
//! Protobuf stops at `discovery/xds/translate`; nothing below it re-checks these
//! values. They hold no live state: `snapshot` compiles them for use and
//! `upstream` measures.

mod balancing;
mod cluster;
mod dns;
mod filter;
mod global_rate_limit;
mod listener;
mod resilience;
mod route;
mod session;
mod subsets;
mod treatment;

pub use balancing::{Balancing, HashPolicy, HashSource, LbPolicy, SlowStart};
pub use cluster::{
    Age, CONNECT_TIMEOUT, Cluster, Endpoint, Endpoints, Health, Keep, Locality, Named, UpstreamProtocol,
};
pub use dns::{Dns, DnsEndpoint, DnsHost, DnsKind, LookupFamily};
pub use filter::{
    Abort, Cors, Fault, HeaderChange, HeaderChanges, HttpFilter, Mirror, Override, PathRewrite, PerMillion, Redirect,
    RedirectPath, RouteFilters, Substitution,
};
pub use global_rate_limit::{Descriptor, Entry, EntryValue, GlobalRateLimit, RATE_LIMIT_TIMEOUT};
pub use listener::{
    Access, AppProtocol, HostListener, InboundListener, InboundPort, OutboundListener, RouteSource, TlsChain,
};
pub use resilience::Resilience;
pub use route::{
    Action, HeaderMatch, HeaderName, Lasts, PathMatch, Pattern, QueryMatch, Route, RouteConfig, RouteMatch, Split,
    StringMatch, ValueMatch, VirtualHost, WeightedCluster,
};
pub use session::{Carrier, Session};
pub use subsets::{Fallback as SubsetFallback, Labels, Selector, Subsets};
pub use treatment::{BACKOFF_BASE, BODY_LIMIT, Conditions, LONGEST_PAUSE, RetryBudget, RetryPolicy, Treatment};
