//! What Pillion's programs say to each other, and to others.
//!
//! The proxy and the control plane never depend on one another: they meet in
//! this crate, which holds the language between them and no behaviour. It does
//! no I/O, keeps no state, and depends on no other crate of the workspace.
//!
//! | module | holds | source |
//! |---|---|---|
//! | [`spiffe`] | trust domains and workload identities | SPIFFE-ID specification |
//! | [`name`] | names of xDS resources | gRFC A27 and A36, xDS protocol |
//! | [`mesh`] | headers, endpoint and node metadata between sidecars | ours, carried in Envoy's fields |
//! | [`header`] | which header fields routes may change | RFC 9110 |
//! | [`health`] | active health checks of a cluster | Envoy's fields |
//! | [`resilience`] | limits, breaker and outlier detection of a cluster | ours, beside Envoy's fields |
//! | [`load_shedding`] | when a workload refuses requests, and whose | ours, beside Envoy's filter |
//! | [`observe`] | how the control plane asks sidecars | ours |
//! | [`load`] | names in load reports beyond the standard | ours, in LRS fields |
//! | [`origin`] | the object and line that something comes from | ours, carried in Envoy's fields |
//! | [`ca`] | certificate signing, messages and gRPC stubs | `istio.v1.auth` |
//! | [`xds`] | xDS v3 messages under short names, type URLs | Envoy's data-plane API |
//! | [`exposition`] | metrics as Prometheus reads them | Prometheus text 0.0.4, OpenMetrics 1.0 |
//! | [`query`] | what pages on localhost read of a request | RFC 3986 |
//! | [`expression`] | regular expressions, within bounds of both ends | RE2 |
//! | [`label`] | the syntax of Kubernetes names | RFC 1035, RFC 1123 |
//!
//! Whatever arrives from a peer is parsed here into types that cannot be
//! wrong, and printed back to the same text: each parser has its printer, and
//! a property test holds the two together.

pub mod ca;
pub mod exposition;
pub mod expression;
pub mod extension;
pub mod header;
pub mod health;
pub mod label;
pub mod load;
pub mod load_shedding;
pub mod mesh;
pub mod name;
pub mod observe;
pub mod origin;
pub mod query;
pub mod rate_limit;
pub mod resilience;
pub mod setting;
pub mod spiffe;
pub mod xds;

mod text;
