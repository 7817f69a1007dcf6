//! Active health checks: endpoints that are not well by their own word, or do not answer, get nothing until they are again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::limits::{ask, cluster, policy};
use crate::support::{
    App, Mesh, Process, Sidecar, Workload, in_workspace, nginx, nginx_command, python, python_app, run, until,
};

/// Instances of `app.shop` in or outside the mesh, and who calls them.
struct Instances {
    mesh: Mesh,
    apps: Vec<App>,
    servers: Vec<Sidecar>,
    client: Sidecar,
    flags: Vec<PathBuf>,
}

/// An nginx that answers its number, and 503 to `/up` while `flag` is there; once `/bye` is asked for it says of itself
/// that it is not well.
fn server(flag: &std::path::Path, number: usize) -> String {
    let flag = flag.display();
    format!(
        "location = /up {{ if (-f {flag}) {{ return 503; }} return 200 up; }}\n\
         location = /bye {{ add_header x-envoy-immediate-health-check-fail true always; return 200 {number}; }}\n\
         location / {{ return 200 {number}; }}"
    )
}

impl Instances {
    /// nginx.
    fn new(in_mesh: bool, count: usize, section: &str) -> Self {
        Self::of(in_mesh, count, ("http", "http"), section, |mesh, number, flag| nginx(mesh, &server(flag, number)))
    }

    fn of(
        in_mesh: bool,
        count: usize,
        (port, protocol): (&str, &str),
        section: &str,
        app: impl Fn(&Mesh, usize, &std::path::Path) -> App,
    ) -> Self {
        let mesh = Mesh::start();
        mesh.service("app", &[(port, 80, protocol)]);
        policy(&mesh, "app", section);
        let flags: Vec<PathBuf> = (1..=count).map(|number| mesh.scratch().join(format!("ill-{number}"))).collect();
        let apps: Vec<App> = flags.iter().zip(1..).map(|(flag, number)| app(&mesh, number, flag)).collect();
        let mut servers = Vec::new();
        for (app, number) in apps.iter().zip(1..) {
            let workload = Workload::new(&format!("app-{number}")).port(port, app.address);
            if in_mesh {
                servers.push(mesh.workload(workload));
            } else {
                mesh.outsider(workload);
            }
        }
        let client = mesh.workload(Workload::new("client").tcp("app.shop:80"));
        Self { mesh, apps, servers, client, flags }
    }

    /// Asks for `/` so often; who answered, or the status.
    fn answers(&self, count: usize) -> Vec<String> {
        let each = || {
            let answer = ask(&self.client, "app", "/");
            if answer.status == 200 { answer.text() } else { format!("{} {}", answer.status, answer.reason()) }
        };
        (0..count).map(|_| each()).collect()
    }

    fn ill(&self, number: usize, is_ill: bool) {
        let flag = &self.flags[number - 1];
        if is_ill { std::fs::write(flag, "").unwrap() } else { std::fs::remove_file(flag).unwrap() }
    }

    fn address(&self, number: usize, port: &str) -> SocketAddr {
        self.servers.get(number - 1).map_or_else(|| self.apps[number - 1].address, |server| server.front(port))
    }

    /// What `/clusters` says of the health of an instance; null while it is unknown.
    fn health(&self, number: usize, port: &str) -> Value {
        let address = self.address(number, port).to_string();
        let hosts = cluster(&self.client, "app")["hosts"].as_array().cloned().unwrap_or_default();
        let host = hosts.iter().find(|host| host["address"] == address);
        host.map(|host| host["health_check"].clone()).unwrap_or_default()
    }

    /// Waits until an instance is in this state, and returns what else is said of it.
    fn wait(&self, number: usize, port: &str, state: &str) -> Value {
        let mut health = Value::Null;
        until(&format!("{number} is {state}"), || {
            health = self.health(number, port);
            health["state"] == state
        });
        health
    }

    fn events(&self, event: &str) -> f64 {
        let labels = [("cluster", "app.shop:80"), ("event", event)];
        self.client.metric("pillion_health_check_events_total", &labels)
    }
}

/// Requests that the caller's application made to each host.
fn requests(client: &Sidecar) -> u64 {
    let hosts = cluster(client, "app")["hosts"].as_array().cloned().unwrap_or_default();
    hosts.iter().map(|host| host["requests"].as_u64().unwrap()).sum()
}

#[test]
fn an_endpoint_that_fails_its_check_gets_nothing_until_it_passes_outside_the_mesh() {
    leaves_and_returns(false);
}

#[test]
fn an_endpoint_that_fails_its_check_gets_nothing_until_it_passes_through_sidecars() {
    leaves_and_returns(true);
}

fn leaves_and_returns(in_mesh: bool) {
    let section = "healthChecks: { http: { path: /up }, interval: 50ms, timeout: 10s, unhealthyThreshold: 2, \
                   healthyThreshold: 2 }";
    let all = Instances::new(in_mesh, 2, section);
    until("all answer", || all.answers(4).iter().filter(|name| *name == "1").count() == 2);
    for number in [1, 2] {
        all.wait(number, "http", "healthy");
    }

    all.ill(1, true);
    let health = all.wait(1, "http", "unhealthy");
    assert_eq!(health["last_check"]["result"], "failed", "{health}");
    assert_eq!(health["last_check"]["why"], "/up is answered 503", "{health}");
    assert_eq!(all.answers(20), vec!["2"; 20]);
    assert_eq!(all.client.metric("pillion_health_check_healthy", &[("cluster", "app.shop:80")]), 1.0);
    assert_eq!(all.client.metric("pillion_hosts_out_of_service", &[("state", "health_check")]), 1.0);
    assert!(all.events("failure") >= 2.0 && all.events("network_failure") == 0.0);
    let log = all.client.process.log();
    assert!(log.contains("an endpoint is unhealthy") && log.contains("/up is answered 503"), "{log}");

    // What is known survives an update, and checks are not requests of the application.
    let since = health["since_seconds"].as_f64().unwrap();
    let third = nginx(&all.mesh, &server(&all.flags[0].with_file_name("none"), 3));
    all.mesh.outsider(Workload::new("app-3").port("http", third.address));
    let known = |count| cluster(&all.client, "app")["hosts"].as_array().map(Vec::len) == Some(count);
    until("a third is known", || known(3));
    let health = all.health(1, "http");
    assert!(health["state"] == "unhealthy" && health["since_seconds"].as_f64().unwrap() >= since, "{health}");
    all.mesh.remove("workload-app-3.yaml");
    until("it is gone", || known(2));
    drop(third);
    let (before, attempts) = (requests(&all.client), all.events("attempt"));
    until("checks go on", || all.events("attempt") > attempts + 5.0);
    assert_eq!(requests(&all.client), before);

    all.ill(1, false);
    all.wait(1, "http", "healthy");
    let answers = all.answers(4);
    assert_eq!(answers.iter().filter(|name| *name == "1").count(), 2, "{answers:?}");
    assert!(all.client.process.log().contains("an endpoint is healthy again"));
    all.mesh.remove("policy-app.yaml");
    until("nothing is checked without the policy", || all.health(1, "http").is_null());
}

#[test]
fn when_all_fail_all_are_used_unless_requests_are_to_fail_fast() {
    let section = "healthChecks: { http: { path: /up }, interval: 50ms, timeout: 10s, unhealthyThreshold: 1 }\n  \
                   fallback: { response: { status: 418 } }";
    let all = Instances::new(false, 2, section);
    for number in [1, 2] {
        all.ill(number, true);
    }
    until("they answer all the same", || all.answers(4).iter().filter(|name| *name == "1").count() == 2);
    for number in [1, 2] {
        all.wait(number, "http", "unhealthy");
    }
    let answers = all.answers(4);
    assert_eq!(answers.iter().filter(|name| *name == "1").count(), 2, "{answers:?}");
    all.mesh.edit("policy-app.yaml", "unhealthyThreshold: 1", "unhealthyThreshold: 1, minimumHealthy: 0");
    until("requests are answered at once", || all.answers(1)[0].starts_with("418"));
    all.mesh.edit("policy-app.yaml", "fallback: { response: { status: 418 } }", "timeouts: { connect: 3s }");
    until("and without a fallback they fail", || all.answers(1) == ["503 no_healthy_upstream"]);
    all.ill(2, false);
    until("one is well", || all.answers(1) == ["2"]);
}

#[test]
fn what_grpc_says_of_its_health_counts_at_once() {
    for in_mesh in [false, true] {
        let section = "healthChecks: { grpc: { service: shop.Greeter }, interval: 100ms, timeout: 10s, \
                       unhealthyThreshold: 1000 }";
        let all = Instances::of(in_mesh, 2, ("grpc", "grpc"), section, |mesh, number, flag| {
            python_app(mesh, "health_grpc.py", &[&number.to_string(), flag.to_str().unwrap()])
        });
        let calls = |count: usize| -> Vec<String> {
            let mut command = python();
            command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(all.client.outbound().to_string());
            let said = run(command.arg("app.shop:80").args(vec!["/shop.Greeter/Hello"; count]));
            let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["reply"].as_str().unwrap().to_owned();
            said.lines().map(line).collect()
        };
        until("both answer", || calls(4).iter().filter(|name| *name == "1").count() == 2);
        all.wait(1, "grpc", "healthy");
        all.ill(1, true);
        let health = all.wait(1, "grpc", "unhealthy");
        assert_eq!(health["last_check"]["why"], "it says NOT_SERVING", "{health}");
        assert_eq!(calls(10), vec!["2"; 10]);
        all.ill(1, false);
        all.wait(1, "grpc", "healthy");
        assert_eq!(calls(10).iter().filter(|name| *name == "1").count(), 5);
    }
}

#[test]
fn a_process_that_stopped_fails_a_tcp_check_that_waits_for_an_answer() {
    for in_mesh in [false, true] {
        let section = "healthChecks: { tcp: { send: ping, receive: ping }, interval: 100ms, timeout: 500ms, \
                       unhealthyThreshold: 2 }";
        let all = Instances::of(in_mesh, 2, ("raw", "tcp"), section, |mesh, _, _| python_app(mesh, "echo_tcp.py", &[]));
        let echo = || {
            let mut stream = TcpStream::connect(all.client.tcp("app.shop:80")).expect("the sidecar takes it");
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).map(|()| answer == *b"hello").unwrap_or_default()
        };
        assert!(echo());
        for number in [1, 2] {
            all.wait(number, "raw", "healthy");
        }
        all.apps[0].process.signal(Signal::SIGSTOP);
        let health = all.wait(1, "raw", "unhealthy");
        assert_eq!(health["last_check"]["why"], "no answer within 500ms", "{health}");
        assert!(all.events("network_failure") >= 2.0);
        assert!((0..6).all(|_| echo()), "the other one takes all");
        all.apps[0].process.signal(Signal::SIGCONT);
        all.wait(1, "raw", "healthy");
    }
}

#[test]
fn a_connection_that_fails_brings_a_check_at_once_and_its_failure_counts() {
    let section = "healthChecks: { http: { path: /up }, interval: 1h, jitter: 0s, timeout: 10s, \
                   unhealthyThreshold: 100, unhealthyInterval: 50ms, healthyThreshold: 3 }";
    for in_mesh in [false, true] {
        let mut all = Instances::new(in_mesh, 2, section);
        until("all answer", || all.answers(4).iter().filter(|name| *name == "1").count() == 2);
        for number in [1, 2] {
            all.wait(number, "http", "healthy");
        }
        assert_eq!(all.events("attempt"), 2.0, "the next ones are an hour away");
        all.apps[0].process.kill();
        let mut answers = Vec::new();
        until("it is unhealthy", || {
            answers.extend(all.answers(2));
            all.health(1, "http")["state"] == "unhealthy"
        });
        assert!(answers.iter().filter(|name| *name != "2").count() <= 2, "{answers:?}");
        let health = all.health(1, "http");
        assert_eq!(health["last_check"]["result"], "failed", "{health}");
        assert!(all.events("passive_failure") >= 1.0);
        assert_eq!(all.answers(10), vec!["2"; 10]);

        let (address, flag) = (all.apps[0].address, &all.flags[0]);
        let folder = all.mesh.scratch().join("nginx-again");
        let again = Process::spawn("nginx", &mut nginx_command(&folder, &address.to_string(), &server(flag, 1)));
        all.wait(1, "http", "healthy");
        let answers = all.answers(4);
        assert_eq!(answers.iter().filter(|name| *name == "1").count(), 2, "{answers:?}");
        drop(again);
    }
}

#[test]
fn an_answer_that_says_so_brings_a_check_and_workers_do_not_each_make_one() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    policy(&mesh, "app", "healthChecks: { http: { path: /up }, interval: 1h, jitter: 0s, timeout: 10s }");
    let flag = mesh.scratch().join("ill");
    let app = nginx(&mesh, &server(&flag, 1));
    let _server = mesh.workload(Workload::new("app").port("http", app.address));
    let client = mesh.workload(Workload::new("client").setting("workers", 4));
    let events = |event| client.metric("pillion_health_check_events_total", &[("event", event)]);
    until("it answers", || ask(&client, "app", "/").status == 200);
    until("it is checked", || events("success") == 1.0);
    for _ in 0..16 {
        assert_eq!(ask(&client, "app", "/").status, 200);
    }
    assert_eq!(events("attempt"), 1.0);
    std::fs::write(&flag, "").unwrap();
    let health = || cluster(&client, "app")["hosts"][0]["health_check"].clone();
    assert_eq!(health()["state"], "healthy", "it has not been asked again");
    assert_eq!(ask(&client, "app", "/bye").status, 200);
    until("its word is checked", || health()["state"] == "unhealthy");
    assert_eq!((events("attempt"), events("passive_failure")), (2.0, 1.0));
    assert_eq!(ask(&client, "app", "/").status, 200, "the last one is used all the same");
}

#[test]
fn an_endpoint_of_another_certificate_than_it_should_have_fails_its_check() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    policy(&mesh, "app", "healthChecks: { tcp: {}, interval: 50ms, timeout: 10s, unhealthyThreshold: 1 }");
    let flag = mesh.scratch().join("ill");
    let app = nginx(&mesh, &server(&flag, 1));
    let _server = mesh.workload(Workload::new("app").port("http", app.address));
    let client = mesh.workload(Workload::new("client"));
    until("it answers", || ask(&client, "app", "/").status == 200);
    let health = || cluster(&client, "app")["hosts"][0]["health_check"].clone();
    until("it is well", || health()["state"] == "healthy");
    mesh.edit("workload-app.yaml", "serviceAccount: app", "serviceAccount: other");
    until("nobody proves to be the other", || health()["state"] == "unhealthy");
    let why = health()["last_check"]["why"].to_string();
    assert!(why.contains("spiffe://cluster.local/ns/shop/sa/other"), "{why}");
}

#[test]
fn what_nobody_asks_for_any_more_is_not_checked() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    policy(&mesh, "app", "healthChecks: { http: { path: /up }, interval: 20ms, timeout: 10s }");
    let flag = mesh.scratch().join("ill");
    let app = nginx(&mesh, &server(&flag, 1));
    mesh.outsider(Workload::new("app").port("http", app.address));
    let client = mesh.workload(Workload::new("client").setting("destination_idle_timeout", "500ms"));
    let attempts = || client.metric("pillion_health_check_events_total", &[("event", "attempt")]);
    assert_eq!(attempts(), 0.0, "not before somebody asks");
    assert_eq!(ask(&client, "app", "/").status, 200);
    until("it is checked again and again, and that is no use of it", || attempts() > 5.0);
    until("it is given up", || cluster(&client, "app").is_null());
    until("checks have ended", || {
        let before = attempts();
        (0..20).all(|_| attempts() == before)
    });
}

#[test]
fn a_sidecar_that_stopped_costs_a_check_its_timeout_and_the_endpoint_its_place() {
    let section = "healthChecks: { http: { path: /up }, interval: 100ms, timeout: 500ms, unhealthyThreshold: 2 }";
    let all = Instances::new(true, 2, section);
    until("all answer", || all.answers(4).iter().filter(|name| *name == "1").count() == 2);
    all.wait(1, "http", "healthy");
    all.servers[0].process.signal(Signal::SIGSTOP);
    let health = all.wait(1, "http", "unhealthy");
    // On the connection that it had, or on a new one.
    let why = health["last_check"]["why"].as_str().unwrap();
    assert!(why == "no answer within 500ms" || why.contains("took too long"), "{health}");
    assert!(all.events("network_failure") >= 2.0);
    assert_eq!(all.answers(10), vec!["2"; 10]);
    all.servers[0].process.signal(Signal::SIGCONT);
    all.wait(1, "http", "healthy");
    until("it answers again", || all.answers(4).iter().filter(|name| *name == "1").count() == 2);
}
