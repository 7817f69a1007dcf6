//! One request or connection on its way to one host, where limits, a breaker or outlier detection are configured.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Host, Kind, Upstream};
use crate::config::Resilience;
use crate::resilience::breaker::{Change, Outcome, Ticket};

/// Counts against the host's limits until dropped, and tells its breaker how it ended.
#[derive(Debug)]
pub struct Call {
    upstream: Arc<Upstream>,
    host: Arc<Host>,
    rules: Arc<Resilience>,
    kind: Kind,
    is_counted: bool,
    ticket: Option<Ticket>,
    is_settled: bool,
    /// When it was let through.
    pub since: Instant,
}

/// Why a host takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It has as much in hand as it may.
    Full,
    /// Its breaker is open.
    Open,
}

impl Call {
    /// Asks for leave to call `host`. `forced`: no other is left, so that an open breaker does not hold.
    ///
    /// # Errors
    /// [`Denied`]; then nothing is counted.
    pub fn begin(
        upstream: &Arc<Upstream>,
        host: &Arc<Host>,
        rules: &Arc<Resilience>,
        kind: Kind,
        now: Instant,
        forced: impl FnOnce() -> bool,
    ) -> Result<Self, Denied> {
        let limit = rules.limits.as_ref().and_then(|limits| match kind {
            Kind::Request => limits.endpoint_requests,
            Kind::Connection => limits.endpoint_connections,
        });
        if limit.is_some_and(|limit| !host.standing.take(kind, limit)) {
            return Err(Denied::Full);
        }
        let mut call = Self {
            upstream: Arc::clone(upstream),
            host: Arc::clone(host),
            rules: Arc::clone(rules),
            kind,
            is_counted: limit.is_some(),
            ticket: None,
            is_settled: false,
            since: now,
        };
        if let Some(breaker) = &rules.breaker {
            call.ticket = host.standing.ticket(breaker, now);
            if call.ticket.is_none() && !forced() {
                return Err(Denied::Open);
            }
        }
        Ok(call)
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// It ended so. Only the first word counts.
    pub fn settle(&mut self, outcome: Outcome, now: Instant) -> Option<Change> {
        if std::mem::replace(&mut self.is_settled, true) {
            return None;
        }
        if self.rules.outlier.is_some() {
            self.host.standing.count(outcome);
        }
        let (ticket, rules) = (self.ticket.take()?, self.rules.breaker.as_ref()?);
        let (upstream, host) = (&self.upstream, &self.host);
        let withdraw = || upstream.withdraw(host, super::standing::BREAKER, rules.keep);
        host.standing.settle(rules, ticket, outcome, now, withdraw)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let (Some(ticket), Some(rules)) = (self.ticket.take(), self.rules.breaker.as_ref()) {
            // It tells nothing: no clock is needed, and nothing can come of it but a free place for a probe.
            let _nothing = self.host.standing.settle(rules, ticket, Outcome::Unknown, self.since, || false);
        }
        if self.is_counted {
            self.host.standing.give_back(self.kind);
        }
    }
}
