use std::time::Duration;

use crate::{
    core::policy::{Target, TrafficPolicy},
    core::route::RouteKind,
    document::{Object, read},
};

fn policy(spec: &str) -> Result<TrafficPolicy, Vec<String>> {
    let text = format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    );
    match read(&text, 1).outcome {
        Ok(Some(Object::Policy(policy))) => Ok(policy.as_ref().clone()),
        Ok(other) => panic!("{other:?}"),
        Err(errors) => Err(errors.iter().map(|placed| placed.issue.path.to_string()).collect()),
    }
}

#[test]
fn targets_and_sections_are_read() {
    let policy = policy(
        "{targetRefs: [{kind: Service, name: a, sectionName: http}, \
         {group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], timeouts: {connect: 1s500ms}}",
    )
    .unwrap();
    assert_eq!(
        policy.targets,
        [
            Target::Service { name: "a".to_owned(), section: Some("http".to_owned()) },
            Target::Route { kind: RouteKind::Http, name: "r".to_owned() },
        ]
    );
    assert_eq!(policy.policy.timeouts.unwrap().connect, Some(Duration::from_millis(1500)));
}

#[test]
fn limits_breaker_and_outlier_detection_have_stated_defaults() {
    let read = policy(
        "{targetRefs: [{kind: Service, name: a}], limits: {requests: 10, perEndpoint: {requests: 4}}, \
         breaker: {failOn: [gateway-error, timeout], statuses: [429], grpcCodes: [UNAVAILABLE, RESOURCE_EXHAUSTED], \
         probes: 3, slowCall: 2s}, outlierDetection: {successRate: {}}}",
    )
    .unwrap()
    .policy;
    let limits = read.limits.unwrap();
    assert_eq!(
        (limits.requests, limits.endpoint_requests, limits.pending, limits.retries),
        (Some(10), Some(4), 0, None)
    );
    let breaker = read.breaker.unwrap();
    assert_eq!((breaker.consecutive, breaker.probes, breaker.successes, breaker.keep), (Some(5), 3, 3, 1));
    let failures = breaker.failures;
    assert_eq!(
        (failures.server_errors, failures.gateway_errors, failures.connect, failures.timeout),
        (false, true, false, true)
    );
    assert_eq!(failures.grpc.into_iter().collect::<Vec<_>>(), [8, 14]);
    assert_eq!(failures.statuses.into_iter().collect::<Vec<_>>(), [429]);
    let outlier = read.outlier.unwrap();
    assert_eq!((outlier.interval.as_secs(), outlier.base_ejection.as_secs(), outlier.max_percent), (10, 30, 10));
    assert!(outlier.success_rate.is_some() && outlier.failure_percentage.is_none());
    let rate = policy("{targetRefs: [{kind: Service, name: a}], breaker: {failureRate: {percent: 50}}}").unwrap();
    let breaker = rate.policy.breaker.unwrap();
    assert_eq!((breaker.consecutive, breaker.rate.unwrap().minimum), (None, 20), "a rate alone is a breaker, too");
}

#[test]
fn refusals_name_the_field() {
    for (spec, path) in [
        ("{targetRefs: []}", "spec.targetRefs"),
        ("{targetRefs: [{kind: Pod, name: a}]}", "spec.targetRefs[0].kind"),
        ("{targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: a}]}", "spec.targetRefs[0].kind"),
        (
            "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: a, sectionName: x}]}",
            "spec.targetRefs[0].sectionName",
        ),
        ("{targetRefs: [{kind: Service, name: a}], timeouts: {connect: 1.5s}}", "spec.timeouts.connect"),
        ("{targetRefs: [{kind: Service, name: a}], timeouts: {connect: 0s}}", "spec.timeouts.connect"),
        ("{targetRefs: [{kind: Service, name: a}], timeouts: {conect: 1s}}", "spec.timeouts.conect"),
        ("{targetRefs: [{kind: Service, name: a}], bulkhead: {}}", "spec.bulkhead"),
        ("{targetRefs: [{kind: Service, name: a}], limits: {pending: 1}}", "spec.limits.pending"),
        ("{targetRefs: [{kind: Service, name: a}], limits: {requests: -1}}", "spec.limits.requests"),
        ("{targetRefs: [{kind: Service, name: a}], limits: {pendingTimeout: 0s}}", "spec.limits.pendingTimeout"),
        (
            "{targetRefs: [{kind: Service, name: a}], limits: {perEndpoint: {retries: 1}}}",
            "spec.limits.perEndpoint.retries",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}], breaker: {consecutiveFailures: 0}}",
            "spec.breaker.consecutiveFailures",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}], breaker: {failureRate: {percent: 0}}}",
            "spec.breaker.failureRate.percent",
        ),
        ("{targetRefs: [{kind: Service, name: a}], breaker: {maxOpenTime: 1ms}}", "spec.breaker.maxOpenTime"),
        (
            "{targetRefs: [{kind: Service, name: a}], breaker: {probes: 2, successesToClose: 3}}",
            "spec.breaker.successesToClose",
        ),
        ("{targetRefs: [{kind: Service, name: a}], breaker: {failOn: [5xx, teapot]}}", "spec.breaker.failOn[1]"),
        ("{targetRefs: [{kind: Service, name: a}], breaker: {statuses: [4290]}}", "spec.breaker.statuses[0]"),
        ("{targetRefs: [{kind: Service, name: a}], outlierDetection: {}}", "spec.outlierDetection"),
        ("{targetRefs: [{kind: Service, name: a}], fallback: {}}", "spec.fallback"),
        (
            "{targetRefs: [{kind: Service, name: a}], fallback: {backends: [{name: b, namespace: other, port: 80}]}}",
            "spec.fallback.backends[0].namespace",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}], fallback: {response: {status: 100}}}",
            "spec.fallback.response.status",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}], outlierDetection: {successRate: {enforcing: 101}}}",
            "spec.outlierDetection.successRate.enforcing",
        ),
    ] {
        assert_eq!(policy(spec).unwrap_err(), [path], "{spec}");
    }
}
