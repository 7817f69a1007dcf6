//! When an endpoint is left alone for what it did.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{BREAKER_METADATA, in_range, list, millis, number, object};
use crate::mesh::{MeshError, ours};
use crate::xds::core::Metadata;
use crate::xds::{Struct, value::Kind};

/// When an endpoint is left alone, and how it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Breaker {
    /// Failures in a row that open it. `None`: they do not.
    pub consecutive: Option<u32>,
    /// The share of failures that opens it. `None`: it does not.
    pub rate: Option<FailureRate>,
    /// How long it stays open the first time; doubled each time that a probe fails.
    pub open: Duration,
    /// How long it stays open at most.
    pub max_open: Duration,
    /// Part of that time, in percent, that is added at random.
    pub jitter_percent: u32,
    /// Requests that are let through while it is half-open.
    pub probes: u32,
    /// How many of them must succeed to close it: 1 to [`Self::probes`].
    pub successes: u32,
    /// Endpoints of the destination that are kept in use whatever they do.
    pub keep: u32,
    /// What counts as a failure.
    pub failures: Failures,
}

/// A share of failures in a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailureRate {
    /// From 1 to 100.
    pub percent: u32,
    /// Over how long.
    pub window: Duration,
    /// Requests in the window below which nothing is concluded.
    pub minimum: u32,
}

/// What counts as a failure of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failures {
    /// Statuses 500 to 599.
    pub server_errors: bool,
    /// Statuses 502, 503 and 504.
    pub gateway_errors: bool,
    /// No connection: refused, too slow, or the wrong identity.
    pub connect: bool,
    /// The connection or stream was cut before the answer, or the answer was not HTTP.
    pub reset: bool,
    /// No answer in the time that the request had.
    pub timeout: bool,
    /// More statuses, such as 429.
    pub statuses: BTreeSet<u16>,
    /// `grpc-status` codes.
    pub grpc: BTreeSet<u8>,
    /// The head of the answer took longer than this.
    pub slow: Option<Duration>,
}

impl Failures {
    /// `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS`: what an endpoint is to blame for.
    pub const GRPC: [u8; 4] = [4, 13, 14, 15];
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            server_errors: true,
            gateway_errors: true,
            connect: true,
            reset: true,
            timeout: true,
            statuses: BTreeSet::new(),
            grpc: BTreeSet::from(Self::GRPC),
            slow: None,
        }
    }
}

impl Default for Breaker {
    /// 5 failures in a row (Envoy's `consecutive_5xx`), then 1 s to 1 min with half as much again at random, and one
    /// probe (Linkerd's failure accrual).
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            rate: None,
            open: Duration::from_secs(1),
            max_open: Duration::from_secs(60),
            jitter_percent: 50,
            probes: 1,
            successes: 1,
            keep: 1,
            failures: Failures::default(),
        }
    }
}

impl Breaker {
    /// The metadata of a breaker: all of it.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        let Failures { server_errors, gateway_errors, connect, reset, timeout, statuses, grpc, slow } = &self.failures;
        let mut fields = vec![
            ("openMs", millis(self.open)),
            ("maxOpenMs", millis(self.max_open)),
            ("jitterPercent", number(self.jitter_percent)),
            ("probes", number(self.probes)),
            ("successes", number(self.successes)),
            ("keep", number(self.keep)),
            ("serverErrors", Kind::BoolValue(*server_errors)),
            ("gatewayErrors", Kind::BoolValue(*gateway_errors)),
            ("connect", Kind::BoolValue(*connect)),
            ("reset", Kind::BoolValue(*reset)),
            ("timeout", Kind::BoolValue(*timeout)),
            ("statuses", list(statuses.iter().copied())),
            ("grpc", list(grpc.iter().copied())),
        ];
        fields.extend(self.consecutive.map(|failures| ("consecutive", number(failures))));
        if let Some(rate) = self.rate {
            fields.extend([
                ("ratePercent", number(rate.percent)),
                ("rateWindowMs", millis(rate.window)),
                ("rateMinimum", number(rate.minimum)),
            ]);
        }
        fields.extend(slow.map(|slow| ("slowMs", millis(slow))));
        object(fields)
    }

    /// Reads a cluster's metadata; `None` when it has no breaker.
    ///
    /// # Errors
    /// When a field is of the wrong type, or a number that makes no sense.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, MeshError> {
        let Some(fields) = ours(metadata, BREAKER_METADATA)? else { return Ok(None) };
        let base = Self::default();
        let rate = match fields.integer("ratePercent")? {
            None => None,
            Some(percent) => Some(FailureRate {
                percent: in_range(&fields, "ratePercent", percent, 1..=100)?,
                window: fields.millis("rateWindowMs")?.unwrap_or(Duration::from_secs(10)),
                minimum: fields.integer("rateMinimum")?.unwrap_or(20),
            }),
        };
        let probes = fields.integer("probes")?.unwrap_or(base.probes);
        let probes = in_range(&fields, "probes", probes, 1..=u32::MAX)?;
        let successes = fields.integer("successes")?.unwrap_or(base.successes);
        let open = fields.millis("openMs")?.unwrap_or(base.open);
        let failures = Failures {
            server_errors: fields.boolean("serverErrors", base.failures.server_errors)?,
            gateway_errors: fields.boolean("gatewayErrors", base.failures.gateway_errors)?,
            connect: fields.boolean("connect", base.failures.connect)?,
            reset: fields.boolean("reset", base.failures.reset)?,
            timeout: fields.boolean("timeout", base.failures.timeout)?,
            statuses: fields.numbers("statuses")?.unwrap_or(base.failures.statuses),
            grpc: fields.numbers("grpc")?.unwrap_or(base.failures.grpc),
            slow: fields.millis("slowMs")?,
        };
        Ok(Some(Self {
            consecutive: fields.integer("consecutive")?,
            rate,
            open,
            max_open: fields.millis("maxOpenMs")?.unwrap_or(base.max_open).max(open),
            jitter_percent: fields.integer("jitterPercent")?.unwrap_or(base.jitter_percent).min(100),
            probes,
            successes: in_range(&fields, "successes", successes, 1..=probes)?,
            keep: fields.integer("keep")?.unwrap_or(base.keep),
            failures,
        }))
    }
}
