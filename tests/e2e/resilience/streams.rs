//! Silence, long streams, and connections at rest.

use super::actor::{Act, Actor};
use super::{ask, logged, policy, says, treated};
use crate::support::{Mesh, Workload, until};

#[test]
fn a_silent_stream_and_a_long_one_are_ended() {
    for (spec, key, reason, flag) in [
        ("streamIdle: 300ms", "stream_idle_ms", "stream_idle", "SI"),
        ("maxDuration: 300ms", "max_duration_ms", "max_duration", "UMSDR"),
    ] {
        let mesh = Mesh::start();
        let actor = Actor::start(mesh.ip(), |request| match request.path() {
            "/hang" => Act::Hang,
            "/stall" => Act::Stall,
            _ => Act::Answer(200, String::new()),
        });
        mesh.service("echo", &[("web", 80, "http")]);
        policy(&mesh, "echo", &format!("timeouts: {{ {spec} }}"));
        let _server = mesh.workload(Workload::new("echo").port("web", actor.address));
        let client = mesh.workload(Workload::new("client"));
        treated(&client, "echo.shop:80", |told| told[key] == 300);
        let response = ask(&client, "http://echo.shop/hang", &[]);
        assert_eq!((response.status, response.reason()), (504, reason), "{response:?}");
        assert_eq!(logged(&client, "/hang"), says(reason, flag));
        let response = ask(&client, "http://echo.shop/stall", &[]);
        assert!(response.exit != 0 && response.status == 200, "{response:?}");
        assert_eq!(logged(&client, "/stall"), says(reason, flag));
        until("the application sees its callers leave", || actor.gone().len() == 2);
    }
}

#[test]
fn a_connection_that_rested_too_long_is_closed() {
    let mesh = Mesh::start();
    let actor = Actor::answering(mesh.ip(), 200);
    mesh.service("echo", &[("web", 80, "http")]);
    policy(&mesh, "echo", "timeouts: { idle: 50ms, streamIdle: 1h }");
    mesh.outsider(Workload::new("echo").port("web", actor.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "echo.shop:80", |told| told["stream_idle_ms"] == 3_600_000);
    assert_eq!(ask(&client, "http://echo.shop/", &[]).status, 200);
    until("it is closed, long before the sidecar's own default", || actor.closed() >= 1);
}
