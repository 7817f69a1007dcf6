//! Outbound planning: which destination a request of our application means, and where it goes from there.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::HOST;
use http::request;
use pillion_wire::mesh::INVALID_BACKEND;
use pillion_wire::name::Destination;

use super::Worker;
use super::attempt::Upstreams;
use super::client::Way;
use super::http::Plan;
use crate::error::ProxyError;
use crate::snapshot::{Action, Target, Unresolved};
use crate::telemetry::Record;

/// The port that an authority without one means.
const HTTP_PORT: u16 = 80;

/// What to do with a request of our application.
pub(super) async fn plan(
    worker: &Worker,
    way: &Way,
    request: &request::Parts,
    record: &mut Record,
) -> Result<Plan, ProxyError> {
    let destination = match way {
        Way::Bound(destination) => destination.clone(),
        _ => destination(request)?,
    };
    let target = target(worker, &destination).await?;
    record.destination = Arc::from(target.label());
    let routes = target.http.as_ref().ok_or_else(|| ProxyError::WrongProtocol(destination.clone(), "HTTP"))?;
    let route = routes.select(request).ok_or(ProxyError::NoRoute(destination))?;
    record.route = Arc::clone(&route.name);
    match &route.action {
        Action::Forward(split) => {
            let cluster = split.pick(rand::random());
            if cluster.config.name == INVALID_BACKEND {
                return Err(ProxyError::InvalidBackend(route.name.to_string()));
            }
            record.cluster = Arc::from(cluster.config.name.as_str());
            Ok(Plan::Forward(Upstreams::Cluster(Arc::clone(cluster))))
        }
        Action::DirectResponse { status, body } => Ok(Plan::Answer { status: *status, body: body.clone() }),
    }
}

/// Looks a destination up, asking the control plane when it is new.
pub(super) async fn target(worker: &Worker, destination: &Destination) -> Result<Arc<Target>, ProxyError> {
    let wait = worker.shared.settings.timeouts.discovery;
    worker.shared.directory.resolve(destination, wait).await.map_err(|why| match why {
        Unresolved::Unknown => ProxyError::UnknownDestination(destination.clone()),
        Unresolved::Timeout => ProxyError::DiscoveryTimeout(destination.clone()),
        Unresolved::Overloaded => ProxyError::DiscoveryOverloaded(destination.clone()),
    })
}

/// The destination that a request names: in its target, else in its one `Host` field (RFC 9112, section 3.2).
pub(super) fn destination(request: &request::Parts) -> Result<Destination, ProxyError> {
    let authority = authority(request)?;
    let parsed: http::uri::Authority =
        authority.parse().map_err(|_invalid| ProxyError::BadAuthority("it is not host or host:port"))?;
    // `Authority::port` leaves out a number that is none, and so would we take port 80 for it.
    let port = match authority.strip_prefix(parsed.host()).and_then(|rest| rest.strip_prefix(':')) {
        Some(port) => port.parse().map_err(|_invalid| ProxyError::BadAuthority("its port is no number"))?,
        None => HTTP_PORT,
    };
    Destination::new(parsed.host(), port).map_err(|_invalid| ProxyError::BadAuthority("its host is no name or address"))
}

/// The authority of a request. Several `Host` fields are refused: the next hop might choose another one. So is user
/// information (RFC 9110, section 4.2.4), which makes one host look like another.
///
/// Empty in HTTP/1.0, which has no `Host`: a port that leads to one destination needs none.
pub(super) fn authority(request: &request::Parts) -> Result<Cow<'_, str>, ProxyError> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ProxyError::BadAuthority("there is more than one Host field"));
    }
    let authority = match (request.uri.authority(), host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => {
            host.to_str().map_err(|_invalid| ProxyError::BadAuthority("the Host field is not text"))?
        }
        (None, None) if request.version <= http::Version::HTTP_10 => "",
        (None, None) => return Err(ProxyError::BadAuthority("there is no Host field")),
    };
    if authority.contains('@') {
        return Err(ProxyError::BadAuthority("user information has no place in it"));
    }
    Ok(Cow::Borrowed(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str, hosts: &[&str]) -> Result<String, &'static str> {
        let mut builder = http::Request::builder().uri(uri);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        let parts = builder.body(()).expect("valid request").into_parts().0;
        destination(&parts).map(|destination| destination.to_string()).map_err(|error| error.reason().code)
    }

    #[test]
    fn the_target_wins_over_the_host_field_and_the_port_defaults_to_80() {
        assert_eq!(parse("/", &["Orders.Shop"]), Ok("orders.shop:80".into()));
        assert_eq!(parse("/", &["orders:8080"]), Ok("orders:8080".into()));
        assert_eq!(parse("http://orders.shop/x", &["other"]), Ok("orders.shop:80".into()));
        assert_eq!(parse("/", &["[::1]:81"]), Ok("[::1]:81".into()));
    }

    #[test]
    fn unclear_authorities_are_refused() {
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "b"]),
            ("http://a/", &["a", "a"]),
            ("/", &["a:0"]),
            ("/", &["a:99999"]),
            ("/", &["user@a"]),
            ("/", &["a b"]),
            ("/", &["a:http"]),
            ("/", &[""]),
        ] {
            assert_eq!(parse(uri, hosts), Err("bad_authority"), "{uri} {hosts:?}");
        }
    }
}
