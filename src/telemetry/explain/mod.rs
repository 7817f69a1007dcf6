//! Why things went as they went: what a request's decisions were, kept for a while, and told to people.
//!
//! A record notes pointers to what was chosen and to what would have been chosen next, and copies of what its head said
//! (cut to a fixed length: nothing of a client's memory is held). A request that goes well allocates nothing for it. When
//! it ends its story goes into a ring of its worker, in place of the oldest; sentences are made only when somebody asks.
//!
//! *Cost* of a request that goes well, in instructions of about 36,000: the trace id read and parsed 250, the request id
//! 80, copies of method, authority and path 60, the next route that matches about 40 for each looked at (at most
//! [`FURTHER_ROUTES`]), counts of what is pointed at 40, the ring 150: less than 2 %. With `--explain-requests 0` each of
//! these is a branch.

mod kept;
mod reasons;
mod ring;
mod tell;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, Uri};
use pillion_wire::origin::Origins;

use super::record::without_user;

pub use kept::Kept;
pub use reasons::{REASONS, page, reason_link};
pub(super) use ring::Ring;
pub use ring::{Filter, Stories, Story};
pub use tell::{section_of, tell};

/// Routes after the chosen one that are looked at for the runner-up.
pub const FURTHER_ROUTES: usize = 8;
/// Steps of one request that are noted.
const MOST_STEPS: usize = 16;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Something that was configured, and where: a route, a destination, a port.
#[derive(Debug, Default)]
pub struct Chosen {
    /// What it is called in logs.
    pub name: Arc<str>,
    /// Objects and lines behind it.
    pub origins: Arc<Origins>,
}

/// Something that happened on the way besides the plain course of things.
#[derive(Clone, Debug)]
pub struct Step {
    /// What was decided: `retried`, `another_host`, `passed_over`, `fell_back`.
    pub code: &'static str,
    /// The reason code of what led to it.
    pub cause: &'static str,
    /// The host that it concerns.
    pub host: Option<SocketAddr>,
    /// The cluster that it concerns.
    pub cluster: Arc<str>,
    /// When, since the request was received.
    pub after: Duration,
}

/// What was decided for one request.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// The route; of what no route matches, the destination; inbound, the port.
    pub chosen: Option<Arc<Chosen>>,
    /// The next route that would have matched.
    pub next: Option<Arc<Chosen>>,
    /// The host that the balancer compared with the one it picked first.
    pub other_host: Option<SocketAddr>,
    /// What happened besides, in order.
    pub steps: Vec<Step>,
    pub(super) heard: Heard,
}

/// What a request's head said, cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) method: Option<Method>,
    pub(super) authority: Kept<64>,
    pub(super) path: Kept<96>,
    pub(super) request_id: Kept<36>,
}

impl Heard {
    pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let host = || headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let id = headers.get(&REQUEST_ID).map(http::HeaderValue::as_bytes).unwrap_or_default();
        Self {
            // One that is not of the standard would be memory of the client's making.
            method: is_standard(method).then(|| method.clone()),
            // The host alone: a name and a password may stand before it.
            authority: Kept::of(uri.authority().map_or_else(|| without_user(host()), Authority::host).as_bytes()),
            path: Kept::of(uri.path().as_bytes()),
            request_id: Kept::of(id),
        }
    }
}

impl Decisions {
    /// Notes a step, unless there are too many.
    pub fn step(&mut self, step: Step) {
        if self.steps.len() < MOST_STEPS {
            self.steps.push(step);
        }
    }
}

fn is_standard(method: &Method) -> bool {
    [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::CONNECT,
        Method::TRACE,
    ]
    .contains(method)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn names_and_passwords_before_a_host_are_not_kept() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("ann:secret@shop"))]);
        for uri in ["/a", "http://ann:secret@shop/a"] {
            assert_eq!(Heard::of(&Method::GET, &Uri::from_static(uri), &headers).authority.text(), "shop");
        }
    }
}
