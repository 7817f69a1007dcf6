//! Start and stop: an application is never without its sidecar's help.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{World, files, lines, say, workload};
use crate::support::{Pod, Stack, eventually, until};

const URL: &str = "http://10.96.0.10/hello.txt";

#[test]
fn a_stopping_sidecar_serves_its_applications_calls_until_the_application_has_gone() {
    let world = World::start(Stack::V4);
    world.service("web", "10.96.0.10", &[(80, 8080, ""), (7, 7000, "")]);
    let server = world.pod(workload("web", &[(8080, ""), (7000, "")]));
    let deadline = Duration::from_secs(60);
    let slow = workload("client", &[(7001, "")]).setting("drain_deadline", "60s");
    let mut client = world.pod(slow);
    let _web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    let _echo = lines(&server, "127.0.0.1:7000", "");
    let mut application = lines(&client, "127.0.0.1:7001", "");
    let calls = |client: &Pod| {
        let answer = client.curl(&[URL]);
        assert_eq!(answer.status, 200, "{}", answer.message);
        assert_eq!(say(client, "10.96.0.10", 7, &["hello"])["answer"], "hello");
        let other = client.curl(&["http://10.96.0.10:80/hello.txt", "-H", "Connection: close"]);
        assert_eq!(other.status, 200, "{}", other.message);
    };
    calls(&client);
    let begin = Instant::now();
    client.sidecar.process.signal(Signal::SIGTERM);
    let health = format!("http://{}/healthz/ready", client.sidecar.health());
    until("it says that it is stopping", || client.curl(&[&health]).status == 503);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    // For longer than it looks for an application that might have gone.
    while begin.elapsed() < Duration::from_millis(1300) {
        calls(&client);
    }
    assert!(client.sidecar.process.exited().is_none());
    application.terminate();
    let status = eventually("it ends by itself", deadline / 3, || client.sidecar.process.exited());
    assert_eq!(status.code(), Some(0));
    let log = client.sidecar.process.log();
    assert!(log.contains("drained") && !log.contains("the application is still there"), "{log}");
}

#[test]
fn an_application_that_has_no_connection_open_is_still_there() {
    let world = World::start(Stack::V4);
    world.service("web", "10.96.0.10", &[(80, 8080, "")]);
    let server = world.pod(workload("web", &[(8080, "")]));
    let _web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    let mut client = world.pod(workload("client", &[]));
    let mut sleeping = std::process::Command::new("sleep");
    let mut application = client.spawn("sleep", sleeping.arg("600"));
    client.sidecar.process.signal(Signal::SIGTERM);
    // While nothing is said, it would believe after a second that nobody is there. It is not asked meanwhile, since who
    // asks is somebody, too.
    let begin = Instant::now();
    until("it might have looked often enough", || begin.elapsed() > Duration::from_millis(1500));
    assert!(client.sidecar.process.exited().is_none());
    assert_eq!(client.curl(&[URL]).status, 200);
    application.kill();
    assert_eq!(client.sidecar.process.wait().code(), Some(0));
    assert!(!client.sidecar.process.log().contains("the application is still there"));
}

#[test]
fn a_stopping_server_takes_no_new_calls_but_its_own_application_still_makes_them() {
    let world = World::start(Stack::V4);
    world.service("web", "10.96.0.10", &[(80, 8080, "")]);
    let other = world.pod(workload("web", &[(8080, "")]));
    let server = world.pod(workload("stopping", &[(7000, "access: permissive")]));
    let client = world.pod(workload("client", &[]));
    let outside = world.network.host("outside");
    let _web = files(&other, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    let _application = lines(&server, "127.0.0.1:7000", "hello");
    assert_eq!(say(&client, server.host.ip(), 7000, &[])["answer"], "hello");
    server.sidecar.process.signal(Signal::SIGTERM);
    let refuses =
        |port: u16| outside.curl(&["--max-time", "1", &format!("http://{}:{port}/", server.host.ip())]).exit == 7;
    until("no new connection is taken on the mesh port", || refuses(15008));
    until("nor from outside the mesh", || refuses(7000));
    assert_eq!(server.curl(&[URL]).status, 200);
}

#[test]
fn the_first_act_of_a_workload_may_be_a_call() {
    let world = World::start(Stack::V4);
    world.service("web", "10.96.0.10", &[(80, 8080, "")]);
    let server = world.pod(workload("web", &[(8080, "")]));
    let _web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    for number in 0..3 {
        // Not even known to be ready: its rules are there, that is all.
        let client = world.pod(workload(&format!("client-{number}"), &[]).not_waiting());
        let answer = client.curl(&[URL]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello\n"), "{}", answer.message);
        let labels = [("destination", "web.shop:80"), ("tls", "mutual")];
        until("it went through the mesh", || client.sidecar.metric("pillion_requests_total", &labels) == 1.0);
    }
}
