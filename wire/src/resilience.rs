//! How a destination is protected from its callers, and callers from its endpoints: limits, breaker, outlier detection.
//!
//! One type for each, from document to proxy. What Envoy has fields for travels in them (`Cluster.circuit_breakers`,
//! `Cluster.outlier_detection`); the rest under our own keys in `Cluster.metadata.filter_metadata`, times in
//! milliseconds.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::mesh::{Fields, MeshError, ours};
use crate::name::ServicePort;
use crate::xds::core::Metadata;
use crate::xds::{ListValue, Struct, Value, value::Kind};

/// Key in `Cluster.metadata.filter_metadata` of what [`Limits`] have beyond Envoy's fields.
pub const LIMITS_METADATA: &str = "pillion.dev/limits";
/// Key in `Cluster.metadata.filter_metadata` of a [`Breaker`].
pub const BREAKER_METADATA: &str = "pillion.dev/breaker";
/// Key in `Cluster.metadata.filter_metadata` of what an [`Outlier`] detection has beyond Envoy's fields.
pub const OUTLIER_METADATA: &str = "pillion.dev/outlier";

/// Key in `Route.metadata.filter_metadata` of a [`Fallback`].
pub const FALLBACK_METADATA: &str = "pillion.dev/fallback";

/// How much a caller may have under way (bulkheads). `None`: no limit, unlike Envoy, whose default is 1024 (3 retries).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// TCP connections and `CONNECT` tunnels to the destination (`CircuitBreakers.Thresholds.max_connections`).
    pub connections: Option<u32>,
    /// HTTP requests in flight, upgraded connections included (`max_requests`).
    pub requests: Option<u32>,
    /// Retries in flight (`max_retries`).
    pub retries: Option<u32>,
    /// Requests and connections that may wait for a place (`max_pending_requests`); default 0: none waits.
    pub pending: u32,
    /// How long they wait at most.
    pub pending_timeout: Duration,
    /// TCP connections to one endpoint (`per_host_thresholds.max_connections`).
    pub endpoint_connections: Option<u32>,
    /// HTTP requests in flight to one endpoint. Envoy has none.
    pub endpoint_requests: Option<u32>,
}

impl Limits {
    /// Default of [`Self::pending_timeout`].
    pub const PENDING_TIMEOUT: Duration = Duration::from_secs(1);

    /// The metadata beyond Envoy's fields.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        let mut fields = vec![("pendingTimeoutMs", millis(self.pending_timeout))];
        fields.extend(self.endpoint_requests.map(|limit| ("endpointRequests", number(limit))));
        object(fields)
    }

    /// Takes over what the metadata says.
    ///
    /// # Errors
    /// When a field is there that is no whole number.
    pub fn extend(&mut self, metadata: &Metadata) -> Result<(), MeshError> {
        let Some(fields) = ours(metadata, LIMITS_METADATA)? else { return Ok(()) };
        self.pending_timeout = fields.millis("pendingTimeoutMs")?.unwrap_or(self.pending_timeout);
        self.endpoint_requests = fields.integer("endpointRequests")?;
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            requests: None,
            retries: None,
            pending: 0,
            pending_timeout: Self::PENDING_TIMEOUT,
            endpoint_connections: None,
            endpoint_requests: None,
        }
    }
}

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

/// Endpoints that do worse than the others are left alone for a while (Envoy `OutlierDetection`, gRFC A50).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outlier {
    /// How often they are compared.
    pub interval: Duration,
    /// How long an endpoint is left alone, times the number of times in a row.
    pub base_ejection: Duration,
    /// The same at most; never less than [`Self::base_ejection`].
    pub max_ejection: Duration,
    /// At most so much is added at random (`max_ejection_time_jitter`).
    pub jitter: Duration,
    /// Share of the endpoints, in percent, from which on no other is ejected. One may always be, as in gRFC A50.
    pub max_percent: u32,
    /// By success rate, compared with the others'.
    pub success_rate: Option<SuccessRate>,
    /// By the share of failures.
    pub failure_percentage: Option<FailurePercentage>,
    /// Endpoints of the destination that are kept in use whatever they do.
    pub keep: u32,
}

/// Ejects endpoints whose success rate is below the mean less so many standard deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuccessRate {
    /// Thousandths of the standard deviation.
    pub stdev_factor: u32,
    /// Endpoints with [`Self::volume`] below which nothing is concluded.
    pub hosts: u32,
    /// Requests in one interval below which nothing is concluded of an endpoint.
    pub volume: u32,
    /// Chance in percent that an outlier is really ejected.
    pub enforcing: u32,
}

/// Ejects endpoints whose failures are at least such a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailurePercentage {
    /// Failures in percent.
    pub threshold: u32,
    /// As [`SuccessRate::hosts`].
    pub hosts: u32,
    /// As [`SuccessRate::volume`].
    pub volume: u32,
    /// As [`SuccessRate::enforcing`].
    pub enforcing: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { stdev_factor: 1900, hosts: 5, volume: 100, enforcing: 100 }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, hosts: 5, volume: 50, enforcing: 100 }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            jitter: Duration::ZERO,
            max_percent: 10,
            success_rate: None,
            failure_percentage: None,
            keep: 1,
        }
    }
}

impl Outlier {
    /// The metadata beyond Envoy's fields.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        object(vec![("keep", number(self.keep))])
    }

    /// Takes over what the metadata says.
    ///
    /// # Errors
    /// When a field is there that is no whole number.
    pub fn extend(&mut self, metadata: &Metadata) -> Result<(), MeshError> {
        let Some(fields) = ours(metadata, OUTLIER_METADATA)? else { return Ok(()) };
        self.keep = fields.integer("keep")?.unwrap_or(self.keep);
        Ok(())
    }
}

/// What happens to requests that none of their backend's endpoints can take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fallback {
    /// Who is asked instead, in this order.
    pub backends: Vec<ServicePort>,
    /// What is answered when none of them can take it either: status and body. `None`: why it failed.
    pub response: Option<(u16, String)>,
}

impl Fallback {
    /// The metadata of a route.
    #[must_use]
    pub fn to_struct(&self) -> Struct {
        let names = self.backends.iter().map(|name| Value { kind: Some(Kind::StringValue(name.to_string())) });
        let mut fields = vec![("clusters", Kind::ListValue(ListValue { values: names.collect() }))];
        if let Some((status, body)) = &self.response {
            fields.extend([("status", number((*status).into())), ("body", Kind::StringValue(body.clone()))]);
        }
        object(fields)
    }

    /// Reads a route's metadata; `None` when it has no fallback.
    ///
    /// # Errors
    /// When a name is none of a cluster, or the status none of a final response.
    pub fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, MeshError> {
        let Some(fields) = ours(metadata, FALLBACK_METADATA)? else { return Ok(None) };
        let wrong = || fields.missing("clusters", "list of names of clusters");
        let name = |value: &Value| match &value.kind {
            Some(Kind::StringValue(name)) => name.parse().map_err(|_no_name| wrong()),
            _ => Err(wrong()),
        };
        let backends = match fields.kind("clusters") {
            None => Vec::new(),
            Some(Kind::ListValue(list)) => list.values.iter().map(name).collect::<Result<_, _>>()?,
            Some(_) => return Err(wrong()),
        };
        let status =
            fields.integer("status")?.map(|status| in_range(&fields, "status", status, 200..=599)).transpose()?;
        let body = match fields.kind("body") {
            Some(Kind::StringValue(body)) => body.clone(),
            None => String::new(),
            Some(_) => return Err(fields.missing("body", "string")),
        };
        let response = status.and_then(|status| u16::try_from(status).ok()).map(|status| (status, body));
        Ok(Some(Self { backends, response }))
    }
}

fn number(number: u32) -> Kind {
    Kind::NumberValue(f64::from(number))
}

fn millis(duration: Duration) -> Kind {
    number(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
}

fn list(numbers: impl Iterator<Item = impl Into<u32>>) -> Kind {
    Kind::ListValue(ListValue { values: numbers.map(|one| Value { kind: Some(number(one.into())) }).collect() })
}

fn object(fields: Vec<(&str, Kind)>) -> Struct {
    let fields: HashMap<String, Value> =
        fields.into_iter().map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) })).collect();
    Struct { fields }
}

fn in_range(
    fields: &Fields<'_>,
    field: &'static str,
    number: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, MeshError> {
    if range.contains(&number) { Ok(number) } else { Err(fields.missing(field, "number in its range")) }
}

/// A whole number of 32 bits.
fn whole(number: f64) -> Option<u32> {
    let integer = number as u32;
    // A cast saturates and truncates, and makes 0 of NaN.
    (f64::from(integer).to_bits() == number.to_bits()).then_some(integer)
}

impl Fields<'_> {
    fn integer(&self, field: &'static str) -> Result<Option<u32>, MeshError> {
        match self.kind(field) {
            None => Ok(None),
            Some(Kind::NumberValue(number)) => {
                whole(*number).map(Some).ok_or_else(|| self.missing(field, "whole number"))
            }
            Some(_) => Err(self.missing(field, "whole number")),
        }
    }

    fn millis(&self, field: &'static str) -> Result<Option<Duration>, MeshError> {
        Ok(self.integer(field)?.map(|millis| Duration::from_millis(millis.into())))
    }

    fn boolean(&self, field: &'static str, default: bool) -> Result<bool, MeshError> {
        match self.kind(field) {
            None => Ok(default),
            Some(Kind::BoolValue(value)) => Ok(*value),
            Some(_) => Err(self.missing(field, "boolean")),
        }
    }

    fn numbers<T: TryFrom<u32> + Ord>(&self, field: &'static str) -> Result<Option<BTreeSet<T>>, MeshError> {
        let wrong = || self.missing(field, "list of whole numbers");
        let Some(kind) = self.kind(field) else { return Ok(None) };
        let Kind::ListValue(list) = kind else { return Err(wrong()) };
        let read = |value: &Value| match value.kind {
            Some(Kind::NumberValue(number)) => whole(number).and_then(|number| T::try_from(number).ok()),
            _ => None,
        };
        list.values.iter().map(|value| read(value).ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(key: &str, content: Struct) -> Metadata {
        Metadata { filter_metadata: HashMap::from([(key.to_owned(), content)]), ..Metadata::default() }
    }

    fn time() -> impl Strategy<Value = Duration> {
        (0..u32::MAX).prop_map(|millis| Duration::from_millis(millis.into()))
    }

    prop_compose! {
        fn breaker()(
            consecutive in any::<Option<u32>>(), rate in prop::option::of((1u32..=100, time(), any::<u32>())),
            open in time(), more in time(), jitter_percent in 0u32..=100, (probes, successes) in (1u32..9, 1u32..9),
            keep in any::<u32>(), flags in any::<[bool; 5]>(), statuses in any::<BTreeSet<u16>>(),
            grpc in any::<BTreeSet<u8>>(), slow in prop::option::of(time()),
        ) -> Breaker {
            let [server_errors, gateway_errors, connect, reset, timeout] = flags;
            Breaker {
                consecutive,
                rate: rate.map(|(percent, window, minimum)| FailureRate { percent, window, minimum }),
                open, max_open: open.max(more), jitter_percent, probes, successes: successes.min(probes), keep,
                failures: Failures { server_errors, gateway_errors, connect, reset, timeout, statuses, grpc, slow },
            }
        }
    }

    proptest! {
        #[test]
        fn a_breaker_survives_the_wire(breaker in breaker()) {
            let told = metadata(BREAKER_METADATA, breaker.to_struct());
            prop_assert_eq!(Breaker::from_metadata(&told), Ok(Some(breaker)));
        }

        #[test]
        fn limits_survive_the_wire(pending_timeout in time(), endpoint_requests in any::<Option<u32>>()) {
            let limits = Limits { pending_timeout, endpoint_requests, ..Limits::default() };
            let mut read = Limits::default();
            prop_assert_eq!(read.extend(&metadata(LIMITS_METADATA, limits.to_struct())), Ok(()));
            prop_assert_eq!(read, limits);
        }
    }

    #[test]
    fn a_fallback_survives_the_wire() {
        let backends = ["a.shop:80", "b.shop:81"].map(|name| name.parse().unwrap()).to_vec();
        for response in [None, Some((503, "later".to_owned()))] {
            let fallback = Fallback { backends: backends.clone(), response };
            let told = metadata(FALLBACK_METADATA, fallback.to_struct());
            assert_eq!(Fallback::from_metadata(&told), Ok(Some(fallback)));
        }
        let told = metadata(FALLBACK_METADATA, object(vec![("status", number(100))]));
        assert!(matches!(Fallback::from_metadata(&told), Err(MeshError::Field { field: "status", .. })));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_name() {
        for (field, kind) in [
            ("probes", number(0)),
            ("successes", number(2)),
            ("ratePercent", number(101)),
            ("openMs", Kind::NumberValue(1.5)),
            ("statuses", list([70_000_u32].into_iter())),
            ("grpc", Kind::BoolValue(true)),
            ("serverErrors", number(1)),
        ] {
            let told = metadata(BREAKER_METADATA, object(vec![(field, kind)]));
            let Err(MeshError::Field { field: named, .. }) = Breaker::from_metadata(&told) else { panic!("{field}") };
            assert_eq!(named, field);
        }
        assert_eq!(
            Breaker::from_metadata(&metadata(BREAKER_METADATA, Struct::default())).map(|read| read.is_some()),
            Ok(true)
        );
        assert_eq!(Breaker::from_metadata(&Metadata::default()), Ok(None));
    }
}
