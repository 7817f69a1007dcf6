//! Endpoints that fail are left alone, for reasons that can be read, and the last one never is.

use std::path::PathBuf;

use serde_json::Value;

use super::limits::{ask, cluster, policy};
use crate::support::{
    App, Mesh, Sidecar, Workload, connect, curl, in_workspace, nginx, python, python_app, run, tcp_server, until,
};

/// Instances of `app.shop`, each of which answers its number, or 500 while it is told to fail.
struct Instances {
    mesh: Mesh,
    _apps: Vec<App>,
    servers: Vec<Sidecar>,
    client: Sidecar,
    flags: Vec<PathBuf>,
}

impl Instances {
    fn new(count: usize, section: &str) -> Self {
        let mesh = Mesh::start();
        mesh.service("app", &[("http", 80, "http")]);
        policy(&mesh, "app", section);
        let flags: Vec<PathBuf> = (1..=count).map(|number| mesh.scratch().join(format!("fail-{number}"))).collect();
        let apps: Vec<App> = flags
            .iter()
            .zip(1..)
            .map(|(flag, number)| {
                let flag = flag.display();
                nginx(&mesh, &format!("location / {{ if (-f {flag}) {{ return 500; }} return 200 {number}; }}"))
            })
            .collect();
        let name = |number: usize| format!("app-{number}");
        let workload =
            |(app, number): (&App, usize)| mesh.workload(Workload::new(&name(number)).port("http", app.address));
        let servers = apps.iter().zip(1..).map(workload).collect();
        let client = mesh.workload(Workload::new("client"));
        let all = Self { mesh, _apps: apps, servers, client, flags };
        until("all answer", || {
            let answers = all.answers(2 * count);
            (1..=count).all(|number| answers.contains(&(200, number.to_string())))
        });
        all
    }

    /// What the next requests are answered: the status, and by whom or for what reason.
    fn answers(&self, count: usize) -> Vec<(u16, String)> {
        let each = || {
            let answer = ask(&self.client, "app", "/");
            let what = if answer.reason().is_empty() { answer.text() } else { answer.reason().to_owned() };
            (answer.status, if answer.status == 500 { String::new() } else { what })
        };
        (0..count).map(|_| each()).collect()
    }

    fn fail(&self, number: usize, on: bool) {
        let flag = &self.flags[number - 1];
        if on { std::fs::write(flag, "").unwrap() } else { std::fs::remove_file(flag).unwrap() }
    }

    /// What `/clusters` says of an instance.
    fn host(&self, number: usize) -> Value {
        let address = self.servers[number - 1].front("http").to_string();
        let hosts = cluster(&self.client, "app")["hosts"].as_array().expect("hosts").clone();
        hosts.iter().find(|host| host["address"] == address).unwrap_or_else(|| panic!("{address}: {hosts:?}")).clone()
    }

    fn changes(&self, change: &str) -> f64 {
        self.client.metric("pillion_breaker_changes_total", &[("cluster", "app.shop:80"), ("change", change)])
    }
}

fn failures(answers: &[(u16, String)]) -> usize {
    answers.iter().filter(|(status, _)| *status == 500).count()
}

#[test]
fn a_failing_endpoint_is_left_alone_and_the_last_healthy_one_never_is() {
    let all = Instances::new(2, "breaker: { consecutiveFailures: 3, openTime: 10m, maxOpenTime: 10m }");
    all.fail(1, true);
    let answers = all.answers(40);
    assert_eq!(failures(&answers), 3, "{answers:?}");
    assert!(answers.iter().filter(|(status, _)| *status == 200).all(|(_, name)| name == "2"), "{answers:?}");
    let host = all.host(1);
    assert_eq!((&host["breaker"]["state"], &host["usable"]), (&Value::from("open"), &Value::from(false)), "{host}");
    assert_eq!(host["breaker"]["why"], "3 failures in a row");
    let again = host["breaker"]["tried_again_in_seconds"].as_f64().unwrap();
    assert!((300.0..=900.0).contains(&again), "{host}");
    assert_eq!(all.client.metric("pillion_hosts_out_of_service", &[("state", "breaker_open")]), 1.0);

    // What was found out survives an update of the endpoints.
    let app = &all._apps[1];
    let _third = all.mesh.workload(Workload::new("app-3").port("http", app.address));
    until("it is known", || cluster(&all.client, "app")["hosts"].as_array().map(Vec::len) == Some(3));
    all.mesh.remove("workload-app-3.yaml");
    until("it is gone", || cluster(&all.client, "app")["hosts"].as_array().map(Vec::len) == Some(2));
    assert_eq!(all.host(1)["breaker"]["state"], "open");

    all.fail(2, true);
    let answers = all.answers(20);
    assert_eq!(failures(&answers), 20, "it is the last, and its own answers are passed on: {answers:?}");
    let host = all.host(2);
    assert_eq!(host["breaker"]["state"], "closed");
    let why = host["breaker"]["not_opened_because"].as_str().expect("why not");
    assert!(why.contains("failures in a row") && why.contains("floor"), "{why}");
    assert_eq!((all.changes("opened"), all.changes("kept")), (1.0, 1.0));

    // Nothing has to stay in use: now the destination fails fast.
    all.mesh.edit("policy-app.yaml", "openTime", "minimumHealthy: 0, openTime");
    until("the last breaker opens", || all.answers(1) == [(503, "breaker_open".to_owned())]);
    assert_eq!(all.host(2)["breaker"]["state"], "open");
    all.mesh.remove("policy-app.yaml");
    until("without a policy all are asked", || failures(&all.answers(4)) == 4);
    all.fail(1, false);
    all.fail(2, false);
    until("and answer", || failures(&all.answers(4)) == 0);
}

#[test]
fn one_probe_at_a_time_finds_out_that_an_endpoint_is_well_again() {
    let all = Instances::new(2, "breaker: { consecutiveFailures: 2, openTime: 100ms, maxOpenTime: 400ms }");
    all.fail(1, true);
    let answers = all.answers(200);
    until("a probe failed, too", || {
        drop(all.answers(1));
        all.changes("opened") >= 3.0
    });
    // Two that opened it, and one for each time that it was tried again.
    assert!(failures(&answers) as f64 <= 1.0 + all.changes("opened"), "{answers:?}, {}", all.changes("opened"));
    all.fail(1, false);
    until("it is asked again", || all.answers(1) == [(200, "1".to_owned())]);
    until("its breaker closes", || {
        drop(all.answers(1));
        all.host(1)["breaker"]["state"] == "closed"
    });
    assert_eq!(all.changes("closed"), 1.0);
    let answers = all.answers(10);
    assert_eq!(answers.iter().filter(|(_, name)| name == "1").count(), 5, "in turn as before: {answers:?}");
}

#[test]
fn an_outlier_is_ejected_and_the_others_say_why_they_are_not() {
    let section = "outlierDetection: { interval: 300ms, baseEjectionTime: 10m, maxEjectionTime: 10m, \
                   failurePercentage: { threshold: 50, minimumHosts: 3, requestVolume: 3 } }";
    let all = Instances::new(3, section);
    all.fail(2, true);
    let labels = [("cluster", "app.shop:80"), ("change", "ejected")];
    until("it is ejected", || {
        drop(all.answers(12));
        all.client.metrics().sum("pillion_ejections_total", &labels) == 1.0
    });
    assert_eq!(failures(&all.answers(30)), 0);
    let host = all.host(2);
    assert_eq!((&host["outlier"]["ejected"], &host["usable"]), (&Value::from(true), &Value::from(false)), "{host}");
    assert!(host["outlier"]["why"].as_str().unwrap().contains("requests failed"), "{host}");
    assert!(host["outlier"]["returns_in_seconds"].as_f64().unwrap() > 60.0, "{host}");

    // A share of 10 % is reached; the next one stays, and that can be read.
    all.mesh.edit("policy-app.yaml", "minimumHosts: 3", "minimumHosts: 2");
    all.fail(1, true);
    until("the next outlier is kept", || {
        drop(all.answers(12));
        let why = all.host(1)["outlier"]["not_ejected_because"].as_str().unwrap_or_default().to_owned();
        why.contains("requests failed") && why.contains("share of endpoints is ejected already")
    });
    assert_eq!(all.client.metric("pillion_ejections_total", &labels), 1.0);
}

#[test]
fn grpc_statuses_count_and_those_at_the_end_of_a_response_too() {
    let mesh = Mesh::start();
    let greeter = python_app(&mesh, "greeter.py", &["ann"]);
    mesh.service("app", &[("grpc", 80, "grpc")]);
    let section = "breaker: { consecutiveFailures: 2, openTime: 10m, maxOpenTime: 10m, minimumHealthy: 0, \
                   grpcCodes: [ UNIMPLEMENTED ] }";
    policy(&mesh, "app", section);
    let _server = mesh.workload(Workload::new("app").port("grpc", greeter.address));
    let client = mesh.workload(Workload::new("client"));
    let (good, bad) = ("/shop.Greeter/Hello", "/shop.Greeter/Nothing");
    let calls = |methods: &[&str]| -> Vec<String> {
        let mut command = python();
        command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(client.outbound().to_string()).arg("app.shop:80");
        let said = run(command.args(methods));
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["code"].as_str().unwrap().to_owned();
        said.lines().map(line).collect()
    };
    // A success, which the trailers tell, breaks the row.
    assert_eq!(calls(&[bad, good, bad, good]), ["UNIMPLEMENTED", "OK", "UNIMPLEMENTED", "OK"]);
    assert_eq!(calls(&[bad, bad, good]), ["UNIMPLEMENTED", "UNIMPLEMENTED", "UNAVAILABLE"]);
    assert!(client.access_log().iter().any(|line| line["reason"] == "breaker_open"));
}

#[test]
fn a_slow_call_is_a_failure_where_it_is_said_so() {
    let mesh = Mesh::start();
    let app = python_app(&mesh, "http1.py", &[]);
    mesh.service("app", &[("http", 80, "http")]);
    policy(
        &mesh,
        "app",
        "breaker: { consecutiveFailures: 1, slowCall: 1ms, failOn: [], openTime: 10m, maxOpenTime: 10m, minimumHealthy: 0 }",
    );
    let _server = mesh.workload(Workload::new("app").port("http", app.address));
    let client = mesh.workload(Workload::new("client"));
    let (url, host) = (format!("http://{}/gather/2", client.outbound()), "Host: app.shop");
    let slow = std::thread::spawn(move || curl(&[&url, "-H", host]));
    until("it is under way", || cluster(&client, "app")["hosts"][0]["in_flight"] == 1);
    assert_eq!(curl(&[&format!("http://{}/gather/2", app.address)]).status, 200);
    assert_eq!(slow.join().unwrap().status, 200);
    assert_eq!(ask(&client, "app", "/").reason(), "breaker_open");
}

#[test]
fn a_tcp_endpoint_that_cannot_be_reached_is_left_alone_too() {
    use std::io::{Read as _, Write as _};
    let mesh = Mesh::start();
    let echo = tcp_server(&mesh, |mut stream| {
        let mut back = stream.try_clone().expect("a socket");
        let _ended = std::io::copy(&mut stream, &mut back);
    });
    mesh.service("ledger", &[("tcp", 80, "tcp")]);
    policy(&mesh, "ledger", "breaker: { consecutiveFailures: 2, openTime: 10m, maxOpenTime: 10m }");
    let down = mesh.workload(Workload::new("ledger-1").port("tcp", mesh.free_address()));
    let _up = mesh.workload(Workload::new("ledger-2").port("tcp", echo));
    let client = mesh.workload(Workload::new("client").tcp("ledger.shop:80"));
    let address = down.front("tcp").to_string();
    until("its breaker opens, and no connection is lost by it", || {
        let mut stream = connect(client.tcp("ledger.shop:80"));
        stream.write_all(b"hi").unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        let hosts = cluster(&client, "ledger")["hosts"].as_array().expect("hosts").clone();
        hosts.iter().any(|host| host["address"] == address && host["breaker"]["state"] == "open")
    });
}
