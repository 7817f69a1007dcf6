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
        ("{targetRefs: [{kind: Service, name: a}], timeouts: {perTry: 0s}}", "spec.timeouts.perTry"),
        ("{targetRefs: [{kind: Service, name: a}], timeouts: {streamIdle: 5}}", "spec.timeouts.streamIdle"),
        ("{targetRefs: [{kind: Service, name: a}], retries: {attempts: 2}}", "spec.retries.on"),
        ("{targetRefs: [{kind: Service, name: a}], retries: {on: [5xx, always]}}", "spec.retries.on[1]"),
        ("{targetRefs: [{kind: Service, name: a}], retries: {codes: [302]}}", "spec.retries.codes[0]"),
        ("{targetRefs: [{kind: Service, name: a}], retries: {budget: {percent: 101}}}", "spec.retries.budget.percent"),
        (
            "{targetRefs: [{kind: Service, name: a}], retries: {backoff: {base: 1s, max: 1ms}}}",
            "spec.retries.backoff.max",
        ),
        ("{targetRefs: [{kind: Service, name: a}], retries: {bodyLimit: 99999999}}", "spec.retries.bodyLimit"),
    ] {
        assert_eq!(policy(spec).unwrap_err(), [path], "{spec}");
    }
}

#[test]
fn retries_are_read_and_codes_imply_their_condition() {
    let policy = policy(
        "{targetRefs: [{kind: Service, name: a}], retries: {attempts: 2, on: [reset], codes: [429], perTry: 1s, \
         backoff: {base: 5ms, max: 1s}, bodyLimit: 1024, budget: {percent: 10, minPerSecond: 3}}}",
    )
    .unwrap();
    let retries = policy.policy.retries.unwrap();
    assert_eq!(retries.on, ["reset", "retriable-status-codes"]);
    assert_eq!((retries.attempts, retries.body_limit), (Some(2), Some(1024)));
    assert_eq!((retries.base, retries.most), (Some(Duration::from_millis(5)), Some(Duration::from_secs(1))));
    let budget = retries.budget.unwrap();
    assert_eq!((budget.percent, budget.min_per_second), (Some(10), Some(3)));
}
