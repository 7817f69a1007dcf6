//! Why things went as they went: what a request's decisions were, kept for a while, and told to people.
//!
//! A record notes pointers to what was chosen and to what would have been chosen next, and handles of what its head said. A
//! request that goes well allocates nothing for it. When it ends copies of that are made, cut to a fixed length: nothing of
//! a client's memory is held. Its story goes into a ring of its worker, in place of the oldest; sentences are made only when somebody asks.
//!
//! *Cost* of a request that goes well, in instructions of about 36,000: the trace id read and parsed 250, the request id
//! 80, handles of method, authority and path and their copies 150, the next route that matches about 40 for each looked at (at most
//! [`FURTHER_ROUTES`]), counts of what is pointed at 40, the ring 150: less than 2 %. With `--explain-requests 0` each of
//! these is a branch.

mod kept;
mod reasons;
mod ring;
mod tell;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pillion_wire::origin::Origins;

pub use kept::Kept;
pub use reasons::{REASONS, page, reason_link};
pub(super) use ring::Ring;
pub use ring::{Filter, Stories, Story};
pub use tell::{section_of, tell};

/// Routes after the chosen one that are looked at for the runner-up.
pub const FURTHER_ROUTES: usize = 8;
/// Steps of one request that are noted.
const MOST_STEPS: usize = 16;

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
}

/// What a request's head said, cut.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Heard {
    pub(super) method: Option<Method>,
    pub(super) authority: Kept<64>,
    pub(super) path: Kept<96>,
    pub(super) request_id: Kept<36>,
}

impl Heard {
    /// The authority is the host alone: a name and a password may stand before it.
    pub(in crate::telemetry) fn of(method: &Method, authority: &[u8], path: &str, request_id: &[u8]) -> Self {
        Self {
            // One that is not of the standard would be memory of the client's making.
            method: is_standard(method).then(|| method.clone()),
            authority: Kept::of(authority),
            path: Kept::of(path.as_bytes()),
            request_id: Kept::of(request_id),
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
