//! How long requests of a route may take, and when they are repeated.

use std::time::Duration;

use pillion_wire::setting::{self, JOIN_TRACE, RETRIES_PER_SECOND};
use pillion_wire::xds::cluster::{CircuitBreakers, circuit_breakers};
use pillion_wire::xds::core::Metadata;
use pillion_wire::xds::route::retry_policy::{
    RateLimitedRetryBackOff, ResetHeaderFormat, RetryHostPredicate, retry_host_predicate,
};
use pillion_wire::xds::route::{RetryPolicy as PbRetryPolicy, RouteAction};
use pillion_wire::xds::type_url;
use pillion_wire::xds::value::Kind;

use super::at::{At, Reason, Refusal, duration, pass_over, refuse};
use crate::config::{BACKOFF_BASE, BODY_LIMIT, Conditions, LONGEST_PAUSE, RetryBudget, RetryPolicy, Treatment};

/// Retries, and how long one try may take.
pub(super) type Retries = (Option<RetryPolicy>, Option<Duration>);

/// The parts of a route's action that concern time. Its retries are those of the virtual host if it has none.
pub(super) fn treatment(at: &At<'_>, action: &RouteAction, of_host: &Retries) -> Result<Treatment, Refusal> {
    let request = limit(&at.field("timeout"), action.timeout)?;
    let stream_idle = limit(&at.field("idle_timeout"), action.idle_timeout)?;
    let (mut max_duration, mut grpc_timeout_max) = (None, None);
    if let Some(stream) = &action.max_stream_duration {
        let at = &at.field("max_stream_duration");
        refuse!(at, stream; grpc_timeout_header_offset);
        max_duration = limit(&at.field("max_stream_duration"), stream.max_stream_duration)?;
        let at = &at.field("grpc_timeout_header_max");
        grpc_timeout_max = stream.grpc_timeout_header_max.map(|most| duration(at, most)).transpose()?;
    }
    let (retry, per_try) = match &action.retry_policy {
        Some(policy) => retries(&at.field("retry_policy"), policy)?,
        None => of_host.clone(),
    };
    Ok(Treatment { request, per_try, stream_idle, max_duration, grpc_timeout_max, detached: false, retry })
}

/// 0 turns off what Envoy has on by default: here there is nothing to turn off.
fn limit(at: &At<'_>, given: Option<pillion_wire::xds::Duration>) -> Result<Option<Duration>, Refusal> {
    let given = given.map(|given| duration(at, given)).transpose()?;
    Ok(given.filter(|given| !given.is_zero()))
}

/// A retry policy. Without conditions nothing is repeated (Envoy).
pub(super) fn retries(at: &At<'_>, policy: &PbRetryPolicy) -> Result<Retries, Refusal> {
    refuse!(at, policy;
        per_try_idle_timeout, retry_priority, retry_options_predicates, retriable_headers, retriable_request_headers,
        refresh_cluster_on_retry);
    pass_over!(at, policy; host_selection_retry_max_attempts);
    for (index, predicate) in policy.retry_host_predicate.iter().enumerate() {
        previous_hosts(&at.field("retry_host_predicate").index(index), predicate)?;
    }
    let per_try = limit(&at.field("per_try_timeout"), policy.per_try_timeout)?;
    let mut on = Conditions::default();
    for name in policy.retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match Conditions::named(name) {
            Some(condition) => on = on.or(condition),
            None if name == "http3-post-connect-failure" => {} // There is no HTTP/3.
            None => return Err(at.field("retry_on").refuse(Reason::Unsupported)),
        }
    }
    let mut codes = Vec::with_capacity(policy.retriable_status_codes.len());
    for (index, code) in policy.retriable_status_codes.iter().enumerate() {
        let code = u16::try_from(*code).ok().filter(|code| (200..600).contains(code));
        let at = &at.field("retriable_status_codes");
        codes.push(code.ok_or_else(|| at.index(index).invalid("is no final HTTP status"))?);
    }
    let (base, most) = back_off(&at.field("retry_back_off"), policy)?;
    let longest_pause = longest_pause(&at.field("rate_limited_retry_back_off"), policy)?;
    let attempts = policy.num_retries.map_or(1, |count| count.value);
    if on.is_empty() || attempts == 0 {
        return Ok((None, per_try));
    }
    Ok((Some(RetryPolicy { on, codes, attempts, base, most, longest_pause, body_limit: BODY_LIMIT }), per_try))
}

fn back_off(at: &At<'_>, policy: &PbRetryPolicy) -> Result<(Duration, Duration), Refusal> {
    let Some(back_off) = &policy.retry_back_off else { return Ok((BACKOFF_BASE, BACKOFF_BASE * 10)) };
    let field = &at.field("base_interval");
    let base = duration(field, field.required(back_off.base_interval)?)?;
    if base.is_zero() {
        return Err(field.invalid("has to be longer than 0"));
    }
    let field = &at.field("max_interval");
    let most =
        back_off.max_interval.map(|most| duration(field, most)).transpose()?.unwrap_or_else(|| base.saturating_mul(10));
    if most < base {
        return Err(field.invalid("is shorter than base_interval"));
    }
    Ok((base, most))
}

/// `Retry-After` is honoured in any case; other fields are not known.
fn longest_pause(at: &At<'_>, policy: &PbRetryPolicy) -> Result<Duration, Refusal> {
    let Some(RateLimitedRetryBackOff { reset_headers, max_interval }) = &policy.rate_limited_retry_back_off else {
        return Ok(LONGEST_PAUSE);
    };
    for (index, header) in reset_headers.iter().enumerate() {
        let is_known =
            header.name.eq_ignore_ascii_case("retry-after") && header.format == ResetHeaderFormat::Seconds as i32;
        if !is_known {
            return Err(at.field("reset_headers").index(index).refuse(Reason::Unsupported));
        }
    }
    let field = &at.field("max_interval");
    max_interval.map(|most| duration(field, most)).transpose().map(|most| most.unwrap_or(LONGEST_PAUSE))
}

/// Hosts that were tried are avoided in any case.
fn previous_hosts(at: &At<'_>, predicate: &RetryHostPredicate) -> Result<(), Refusal> {
    match &predicate.config_type {
        Some(retry_host_predicate::ConfigType::TypedConfig(any)) if any.type_url == type_url::PREVIOUS_HOSTS => Ok(()),
        _ => Err(at.refuse(Reason::Unsupported)),
    }
}

/// Is a route's call left alone by the request that it belongs to?
pub(super) fn detached(at: &At<'_>, metadata: Option<&Metadata>) -> Result<bool, Refusal> {
    match setting::get(metadata, JOIN_TRACE) {
        None => Ok(false),
        Some(Kind::BoolValue(joined)) => Ok(!joined),
        Some(_) => Err(at.invalid("has a joinTrace that is neither true nor false")),
    }
}

/// `circuit_breakers` as far as they concern retries.
pub(super) fn budget(
    at: &At<'_>,
    breakers: Option<&CircuitBreakers>,
    metadata: Option<&Metadata>,
) -> Result<RetryBudget, Refusal> {
    let mut budget = RetryBudget::default();
    if let Some(breakers) = breakers {
        let at = &at.field("circuit_breakers");
        for (index, thresholds) in breakers.thresholds.iter().enumerate() {
            let at = &at.field("thresholds");
            percent(&at.index(index), thresholds, &mut budget)?;
        }
    }
    match setting::get(metadata, RETRIES_PER_SECOND) {
        None => {}
        Some(Kind::NumberValue(rate)) if (0.0..=1e6).contains(rate) && rate.fract() == 0.0 => {
            budget.min_per_second = *rate as u32;
        }
        Some(_) => {
            return Err(at.field("metadata").invalid("has a retryBudgetMinPerSecond that is no number to 1000000"));
        }
    }
    Ok(budget)
}

fn percent(at: &At<'_>, thresholds: &circuit_breakers::Thresholds, budget: &mut RetryBudget) -> Result<(), Refusal> {
    let Some(told) = &thresholds.retry_budget else { return Ok(()) };
    let at = &at.field("retry_budget");
    refuse!(at, told; budget_interval);
    pass_over!(at, told; min_retry_concurrency);
    if let Some(percent) = &told.budget_percent {
        if !(0.0..=100.0).contains(&percent.value) {
            return Err(at.field("budget_percent").invalid("is not from 0 to 100"));
        }
        budget.percent = percent.value as u8;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pillion_wire::xds::Duration as PbDuration;
    use pillion_wire::xds::route::retry_policy::{ResetHeader, RetryBackOff};
    use pillion_wire::xds::route::route_action::MaxStreamDuration;

    use super::*;

    fn seconds(seconds: i64) -> Option<PbDuration> {
        Some(PbDuration { seconds, nanos: 0 })
    }

    fn action(policy: PbRetryPolicy) -> RouteAction {
        RouteAction { retry_policy: Some(policy), ..RouteAction::default() }
    }

    fn read(action: &RouteAction) -> Result<Treatment, String> {
        treatment(&At::ROOT.field("route"), action, &Retries::default()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn all_of_it_is_read_with_the_defaults_of_envoy() {
        let mut message = action(PbRetryPolicy {
            retry_on: "5xx, unavailable,http3-post-connect-failure".into(),
            per_try_timeout: seconds(1),
            ..PbRetryPolicy::default()
        });
        message.timeout = seconds(2);
        message.idle_timeout = seconds(0);
        message.max_stream_duration = Some(MaxStreamDuration {
            max_stream_duration: seconds(4),
            grpc_timeout_header_max: seconds(0),
            grpc_timeout_header_offset: None,
        });
        let told = read(&message).expect("valid");
        let (request, most) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(4)));
        assert_eq!((told.request, told.stream_idle, told.max_duration), (request, None, most));
        assert_eq!(told.grpc_timeout_max, Some(Duration::ZERO));
        let retry = told.retry.expect("it has conditions");
        assert_eq!(retry.on, Conditions::SERVER_ERROR.or(Conditions::UNAVAILABLE));
        assert_eq!((retry.attempts, retry.base, retry.most), (1, BACKOFF_BASE, BACKOFF_BASE * 10));
        assert_eq!(read(&RouteAction::default()).expect("valid"), Treatment::default());
    }

    #[test]
    fn no_duration_is_too_long_to_be_added_to_a_moment() {
        let forever = RouteAction { timeout: seconds(i64::MAX), ..RouteAction::default() };
        assert_eq!(read(&forever).expect_err("too long"), "route.timeout: is no duration");
        let long = RouteAction { timeout: seconds(315_576_000_000), ..RouteAction::default() };
        let told = read(&long).expect("valid").request.expect("set");
        assert!(tokio::time::Instant::now().checked_add(told).is_some());
    }

    #[test]
    fn a_policy_without_conditions_limits_the_try_and_repeats_nothing() {
        let told = read(&action(PbRetryPolicy { per_try_timeout: seconds(1), ..PbRetryPolicy::default() }));
        let told = told.expect("valid");
        assert_eq!((told.per_try, told.retry), (Some(Duration::from_secs(1)), None));
    }

    #[test]
    fn what_would_mean_something_else_is_refused_with_the_path() {
        let on = |retry_on: &str| PbRetryPolicy { retry_on: retry_on.into(), ..PbRetryPolicy::default() };
        let back_off = |base, most| PbRetryPolicy {
            retry_back_off: Some(RetryBackOff { base_interval: base, max_interval: most }),
            ..on("5xx")
        };
        let reset = ResetHeader { name: "x-ratelimit-reset".into(), format: ResetHeaderFormat::UnixTimestamp.into() };
        for (policy, path) in [
            (on("5xx,retriable-headers"), "route.retry_policy.retry_on: is not supported"),
            (back_off(None, None), "route.retry_policy.retry_back_off.base_interval: is missing"),
            (back_off(seconds(0), None), "route.retry_policy.retry_back_off.base_interval: has to be longer than 0"),
            (back_off(seconds(2), seconds(1)), "route.retry_policy.retry_back_off.max_interval: is shorter"),
            (
                PbRetryPolicy { retriable_status_codes: vec![503, 99], ..on("5xx") },
                "route.retry_policy.retriable_status_codes[1]: is no final HTTP status",
            ),
            (
                PbRetryPolicy { per_try_idle_timeout: seconds(1), ..on("5xx") },
                "route.retry_policy.per_try_idle_timeout: is not supported",
            ),
            (
                PbRetryPolicy { retry_host_predicate: vec![RetryHostPredicate::default()], ..on("5xx") },
                "route.retry_policy.retry_host_predicate[0]: is not supported",
            ),
            (
                PbRetryPolicy {
                    rate_limited_retry_back_off: Some(RateLimitedRetryBackOff {
                        reset_headers: vec![reset],
                        max_interval: None,
                    }),
                    ..on("5xx")
                },
                "route.retry_policy.rate_limited_retry_back_off.reset_headers[0]: is not supported",
            ),
        ] {
            let error = read(&action(policy)).expect_err(path);
            assert!(error.starts_with(path), "{error}");
        }
    }

    #[test]
    fn the_budget_of_a_cluster_is_read() {
        let breakers = |thresholds| CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() };
        let told = circuit_breakers::Thresholds {
            retry_budget: Some(circuit_breakers::thresholds::RetryBudget {
                budget_percent: Some(pillion_wire::xds::envoy_type::Percent { value: 12.5 }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut metadata = None;
        setting::set(&mut metadata, RETRIES_PER_SECOND, Kind::NumberValue(0.0));
        let read = budget(&At::ROOT, Some(&breakers(told)), metadata.as_ref()).expect("valid");
        assert_eq!(read, RetryBudget { percent: 12, min_per_second: 0 });
        assert_eq!(budget(&At::ROOT, None, None).expect("valid"), RetryBudget::default());
        setting::set(&mut metadata, RETRIES_PER_SECOND, Kind::NumberValue(-1.0));
        assert!(budget(&At::ROOT, None, metadata.as_ref()).is_err());
    }
}
