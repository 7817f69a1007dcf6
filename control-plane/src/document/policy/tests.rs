use std::time::Duration;

use crate::{
    core::policy::{Abort, Share, Target, TrafficPolicy},
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
        ("{targetRefs: [{kind: Service, name: a}], faults: {}}", "spec.faults"),
        (
            "{targetRefs: [{kind: Service, name: a}], faults: {delay: {fixed: 0s, percent: 1}}}",
            "spec.faults.delay.fixed",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}], faults: {delay: {fixed: 1s, percent: 100.1}}}",
            "spec.faults.delay.percent",
        ),
        ("{targetRefs: [{kind: Service, name: a}], faults: {abort: {percent: 1}}}", "spec.faults.abort"),
        (
            "{targetRefs: [{kind: Service, name: a}], faults: {abort: {grpcStatus: GONE, percent: 1}}}",
            "spec.faults.abort.grpcStatus",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}], faults: {abort: {httpStatus: 99, percent: 1}}}",
            "spec.faults.abort.httpStatus",
        ),
        ("{targetRefs: [{kind: Service, name: a}], directResponse: {status: 42}}", "spec.directResponse.status"),
    ] {
        assert_eq!(policy(spec).unwrap_err(), [path], "{spec}");
    }
}

#[test]
fn faults_are_read_to_the_millionth() {
    let policy = policy(
        "{targetRefs: [{kind: Service, name: a}], faults: {delay: {fixed: 2s, percent: 0.0001},
          abort: {grpcStatus: UNAVAILABLE, percent: 100}, headers: [{name: X-Chaos, value: 'yes'}]}}",
    );
    let faults = policy.unwrap().policy.faults.unwrap();
    assert_eq!(faults.delay, Some((Duration::from_secs(2), Share(1))));
    assert_eq!(faults.abort, Some((Abort::Grpc(14), Share(1_000_000))));
    assert_eq!((faults.headers[0].name.as_str(), faults.max_active), ("x-chaos", 1024));
}
