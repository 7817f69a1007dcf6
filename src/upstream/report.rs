//! How a host stands, as the admin pages tell it.

use tokio::time::Instant;

use crate::resilience::breaker::State;
use crate::resilience::outlier::Verdict;

/// How a host stands, for people.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests and connections against limits of the host's own; `None` without such limits.
    pub in_use: Option<(u32, u32)>,
    /// The breaker, when there is one.
    pub breaker: Option<BreakerReport>,
    /// Ejected since when, until when, and why.
    pub ejected: Option<(Instant, Instant, String)>,
    /// What the last comparison found; `None` when there was none.
    pub verdict: Option<Verdict>,
}

/// The breaker of a host, for people.
#[derive(Clone, Debug)]
pub struct BreakerReport {
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why it opened last; empty when it never did.
    pub why: String,
    /// Times that it opened since it was last closed.
    pub openings: u32,
    /// Why it would have opened, had the host not been needed.
    pub kept: Option<String>,
}
