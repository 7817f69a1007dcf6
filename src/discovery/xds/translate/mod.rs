//! Protobuf to `config`: the only place of the proxy that sees xDS messages.
//!
//! Strict. A field is read, or refused because it would change what happens to
//! traffic and is not supported, or reported at debug level because it would
//! not. Whoever sent it learns the path of the field. Bytes come from a peer:
//! nothing here panics, whatever they are.

mod at;
mod balancing;
mod changes;
mod cluster;
mod dns;
mod endpoints;
mod filters;
mod hash;
mod hcm;
mod health;
mod listener;
mod load_shedding;
mod matching;
mod rate_limit;
mod resilience;
mod route;
mod session;
mod subsets;
mod tls;
mod treatment;

pub use at::{Reason, Refusal};

use pillion_wire::name::ListenerName;
use pillion_wire::xds::{Any, type_url};

use super::super::{Config, Kind};
use at::{At, unpack};

/// Translates the resource `name` of `kind`.
///
/// # Errors
/// [`Refusal`] says which field is wrong, and why.
pub fn resource(kind: Kind, name: &str, content: &Any) -> Result<Config, Refusal> {
    let at = &At::ROOT;
    match kind {
        Kind::Listener => match name.parse().map_err(|error| at.field("name").refuse(Reason::Name(error)))? {
            ListenerName::Outbound(destination) => {
                let message = unpack(at, type_url::LISTENER, content)?;
                listener::outbound(at, name, destination, message).map(Config::Outbound)
            }
            ListenerName::Inbound(address) => {
                let message = unpack(at, type_url::LISTENER, content)?;
                listener::inbound(at, name, address, message).map(Config::Inbound)
            }
            ListenerName::Host(host) => {
                let message = unpack(at, type_url::LISTENER, content)?;
                listener::host(at, name, host, message).map(Config::Host)
            }
            ListenerName::GrpcServer(_) => Err(at.field("name").refuse(Reason::Unsupported)),
        },
        Kind::Route => route::named(at, name, unpack(at, type_url::ROUTE, content)?).map(Config::Route),
        Kind::Cluster => cluster::cluster(at, name, unpack(at, type_url::CLUSTER, content)?).map(Config::Cluster),
        Kind::Endpoints => {
            endpoints::assignment(at, name, unpack(at, type_url::ENDPOINTS, content)?).map(Config::Endpoints)
        }
    }
}

#[cfg(test)]
mod dns_tests;
#[cfg(test)]
mod filters_tests;
#[cfg(test)]
mod tests;
