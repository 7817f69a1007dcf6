//! How long requests may take and when they are repeated: the fields of a route and of a cluster that say so.

use std::time::Duration as Time;

use pillion_wire::{
    setting::{self, JOIN_TRACE, RETRIES_PER_SECOND},
    xds::{
        UInt32Value,
        cluster::{CircuitBreakers, Cluster, circuit_breakers},
        envoy_type::Percent,
        pack,
        previous_hosts::PreviousHostsPredicate,
        route::{
            RetryPolicy, Route, RouteAction,
            retry_policy::{
                RateLimitedRetryBackOff, ResetHeader, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
                retry_host_predicate,
            },
            route,
            route_action::MaxStreamDuration,
        },
        type_url,
        value::Kind,
    },
};

use super::{duration, session};
use crate::{
    core::{
        policy::{Policy, Retries, Timeouts},
        view::PortView,
    },
    xds::dialect::Dialect,
};

/// Conditions that gRPC knows (gRFC A44).
const GRPC: [&str; 5] = ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];
/// Retries at one time in per cent of active requests, if no policy says.
const PERCENT: u8 = 20;
/// How often Envoy picks again when it has picked a host that was tried.
const HOST_ATTEMPTS: i64 = 5;

/// Adds what `policy` says to a route that forwards.
pub(super) fn treat(mut route: Route, policy: &Policy, dialect: Dialect) -> Route {
    let none = Timeouts::default();
    let timeouts = policy.timeouts.as_ref().unwrap_or(&none);
    if let Some(route::Action::Route(action)) = &mut route.action {
        limit(action, timeouts, dialect);
        action.retry_policy = retry_policy(policy, dialect);
    }
    if dialect == Dialect::Pillion && timeouts.join_trace == Some(false) {
        setting::set(&mut route.metadata, JOIN_TRACE, Kind::BoolValue(false));
    }
    session::limit(&mut route.metadata, policy, dialect);
    let body_limit = policy.retries.as_ref().and_then(|retries| retries.body_limit);
    if let Some(value) = body_limit.filter(|_| dialect != Dialect::Grpc) {
        #[expect(deprecated, reason = "its successor is younger than the Envoys that are in use")]
        {
            route.per_request_buffer_limit_bytes = Some(UInt32Value { value });
        }
    }
    route
}

/// gRPC takes no notice of `timeout`: to it the request is the stream (gRFC A31).
fn limit(action: &mut RouteAction, timeouts: &Timeouts, dialect: Dialect) {
    let request = timeouts.request.filter(|request| !request.is_zero());
    let mut most = timeouts.max_duration;
    if dialect == Dialect::Grpc {
        most = most.into_iter().chain(request).min();
    } else if let Some(request) = request {
        action.timeout = Some(duration(request));
    }
    if dialect != Dialect::Grpc {
        action.idle_timeout = timeouts.stream_idle.map(duration);
    }
    action.max_stream_duration = most
        .map(|most| MaxStreamDuration { max_stream_duration: Some(duration(most)), ..MaxStreamDuration::default() });
}

fn retry_policy(policy: &Policy, dialect: Dialect) -> Option<RetryPolicy> {
    let none = Retries::default();
    let retries = policy.retries.as_ref().unwrap_or(&none);
    let per_try = retries.per_try.or_else(|| policy.timeouts.as_ref()?.per_try);
    let fits = |condition: &&&str| dialect != Dialect::Grpc || GRPC.contains(*condition);
    let on: Vec<&str> = retries.on.iter().filter(fits).copied().collect();
    let on = if retries.is_on() { on.join(",") } else { String::new() };
    if on.is_empty() && (per_try.is_none() || dialect == Dialect::Grpc) {
        return None;
    }
    let attempts = if on.is_empty() { 0 } else { retries.attempts.unwrap_or(1) };
    let base = retries.base.unwrap_or(Retries::BASE);
    let mut told = RetryPolicy {
        retry_on: on,
        num_retries: Some(UInt32Value { value: attempts }),
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(duration(base)),
            max_interval: Some(duration(most(base, retries.most))),
        }),
        ..RetryPolicy::default()
    };
    if dialect != Dialect::Grpc {
        told.per_try_timeout = per_try.map(duration);
        told.retriable_status_codes = retries.codes.iter().copied().map(u32::from).collect();
        told.rate_limited_retry_back_off = Some(RateLimitedRetryBackOff {
            reset_headers: vec![ResetHeader {
                name: "Retry-After".to_owned(),
                format: ResetHeaderFormat::Seconds.into(),
            }],
            max_interval: None,
        });
        told.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
                type_url::PREVIOUS_HOSTS,
                &PreviousHostsPredicate {},
            ))),
        }];
        told.host_selection_retry_max_attempts = HOST_ATTEMPTS;
    }
    Some(told)
}

fn most(base: Time, most: Option<Time>) -> Time {
    most.unwrap_or_else(|| base.saturating_mul(10)).max(base)
}

/// Adds the budget of retries to a cluster, wherever requests to its port may be repeated.
pub(super) fn budget(mut cluster: Cluster, view: &PortView, dialect: Dialect) -> Cluster {
    if dialect == Dialect::Grpc || !is_retried(view) {
        return cluster;
    }
    let budget = view.policy.retries.as_ref().and_then(|retries| retries.budget).unwrap_or_default();
    let percent = f64::from(budget.percent.unwrap_or(PERCENT));
    let breakers = cluster.circuit_breakers.get_or_insert_with(CircuitBreakers::default);
    if breakers.thresholds.is_empty() {
        breakers.thresholds.push(circuit_breakers::Thresholds::default());
    }
    if let Some(thresholds) = breakers.thresholds.first_mut() {
        thresholds.retry_budget = Some(circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(Percent { value: percent }),
            ..circuit_breakers::thresholds::RetryBudget::default()
        });
    }
    if let Some(rate) = budget.min_per_second.filter(|_| dialect == Dialect::Pillion) {
        setting::set(&mut cluster.metadata, RETRIES_PER_SECOND, Kind::NumberValue(rate.into()));
    }
    cluster
}

/// May requests to a port be repeated, by whatever says so?
pub(crate) fn is_retried(view: &PortView) -> bool {
    let mut of_routes = view.http.iter().flatten().filter_map(|entry| entry.policy.retries.as_ref());
    view.policy.retries.is_some() || of_routes.any(Retries::is_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let retries = Retries {
            on: vec!["5xx", "unavailable"],
            codes: vec![429],
            attempts: Some(3),
            body_limit: Some(10),
            ..Retries::default()
        };
        let timeouts = Timeouts {
            request: Some(Time::from_secs(2)),
            max_duration: Some(Time::from_secs(9)),
            stream_idle: Some(Time::from_secs(3)),
            per_try: Some(Time::from_secs(1)),
            join_trace: Some(false),
            ..Timeouts::default()
        };
        let of_retries = Policy { retries: Some(retries), ..Policy::default() };
        Policy { timeouts: Some(timeouts), ..of_retries }
    }

    fn treated(policy: &Policy, dialect: Dialect) -> (Route, RouteAction) {
        let route = Route { action: Some(route::Action::Route(RouteAction::default())), ..Route::default() };
        let route = treat(route, policy, dialect);
        let Some(route::Action::Route(action)) = route.action.clone() else { panic!("not forwarded") };
        (route, action)
    }

    #[test]
    fn each_client_is_told_what_it_understands() {
        let (route, action) = treated(&policy(), Dialect::Pillion);
        assert_eq!(action.timeout.unwrap().seconds, 2);
        assert_eq!(action.idle_timeout.unwrap().seconds, 3);
        assert_eq!(action.max_stream_duration.unwrap().max_stream_duration.unwrap().seconds, 9);
        let retry = action.retry_policy.unwrap();
        assert_eq!((retry.retry_on.as_str(), retry.retriable_status_codes), ("5xx,unavailable", vec![429]));
        assert_eq!(retry.per_try_timeout.unwrap().seconds, 1);
        assert_eq!(retry.retry_back_off.unwrap().max_interval.unwrap().nanos, 250_000_000);
        assert!(route.metadata.is_some());

        let (route, action) = treated(&policy(), Dialect::Grpc);
        assert_eq!((action.timeout, action.idle_timeout), (None, None));
        assert_eq!(action.max_stream_duration.unwrap().max_stream_duration.unwrap().seconds, 2);
        let retry = action.retry_policy.unwrap();
        assert_eq!((retry.retry_on.as_str(), retry.num_retries.unwrap().value), ("unavailable", 3));
        assert!(retry.retry_host_predicate.is_empty() && retry.per_try_timeout.is_none());
        assert!(route.metadata.is_none());

        assert!(treated(&policy(), Dialect::Envoy).0.metadata.is_none());
    }

    #[test]
    fn nothing_is_said_of_what_no_policy_says() {
        let (route, action) = treated(&Policy::default(), Dialect::Pillion);
        assert_eq!(action, RouteAction::default());
        assert_eq!(route.metadata, None);
        let off =
            Policy { retries: Some(Retries { attempts: Some(0), ..policy().retries.unwrap() }), ..Policy::default() };
        assert_eq!(treated(&off, Dialect::Pillion).1.retry_policy, None);
    }
}
