//! Which of a Service's workloads a call goes to.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Curl, Mesh, Sidecar, Workload, connect, curl, python_app, read_http_head, tcp_server, until};

const ZONE: &str = "topology.kubernetes.io/zone";

/// Writes a policy for the Service `app`, whose `loadBalancing` this is.
fn policy(mesh: &Mesh, section: &str) {
    mesh.write(
        "policy.yaml",
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: app, namespace: shop }}\n\
             spec:\n  targetRefs: [ {{ group: \"\", kind: Service, name: app }} ]\n  loadBalancing: {section}\n"
        ),
    );
}

/// Answers one request with a name.
fn answer(mut stream: TcpStream, name: &str, before: impl Fn()) {
    if read_http_head(&mut stream).is_empty() {
        return;
    }
    before();
    let length = name.len();
    let _gone = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
}

/// An application that answers with its name.
fn named(mesh: &Mesh, name: &'static str) -> SocketAddr {
    tcp_server(mesh, move |stream| answer(stream, name, || {}))
}

fn ask(client: &Sidecar, arguments: &[&str]) -> Curl {
    let url = format!("http://{}/", client.outbound());
    let response = curl(&[&[&url, "-H", "Host: app.shop"], arguments].concat());
    assert_eq!((response.exit, response.status), (0, 200), "{response:?}");
    response
}

fn who(client: &Sidecar, arguments: &[&str]) -> String {
    ask(client, arguments).text()
}

/// The hosts of the Service as its caller sees them, by port.
fn hosts(client: &Sidecar) -> BTreeMap<u64, Value> {
    let clusters: Value = serde_json::from_str(&client.admin_page("/clusters")).unwrap_or_default();
    let hosts = clusters.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("app.shop:"));
    let hosts = hosts.flat_map(|(_, cluster)| cluster["hosts"].as_array().cloned().unwrap_or_default());
    let port = |host: &Value| host["address"].as_str()?.parse::<SocketAddr>().ok().map(|address| address.port().into());
    hosts.filter_map(|host| Some((port(&host)?, host))).collect()
}

/// Waits until the caller knows so many hosts and picks by this policy.
fn until_known(client: &Sidecar, count: usize, policy: &str) {
    until(&format!("{count} hosts are known, and {policy}"), || {
        ask(client, &[]);
        hosts(client).len() == count && client.admin_page("/clusters").contains(policy)
    });
}

#[test]
fn weights_of_workloads_hold() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    mesh.outsider(Workload::new("app-1").port("http", named(&mesh, "one")).spec("weight: 3"));
    let heavy = mesh.workload(Workload::new("app-2").port("http", named(&mesh, "two")).spec("weight: 5"));
    mesh.outsider(Workload::new("app-3").port("http", named(&mesh, "three")));
    let client = mesh.workload(Workload::new("client"));
    until_known(&client, 3, "RoundRobin");
    let mut tally: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..90 {
        *tally.entry(who(&client, &[])).or_default() += 1;
    }
    let expected = [("one", 30), ("three", 10), ("two", 50)].map(|(name, count)| (name.to_owned(), count));
    assert!(tally.iter().zip(&expected).all(|(a, b)| a.0 == &b.0 && a.1.abs_diff(b.1) <= 1), "{tally:?}");
    mesh.edit("workload-app-2.yaml", "weight: 5", "weight: 1");
    until("the edit is followed", || {
        hosts(&client).get(&heavy.front("http").port().into()).is_some_and(|host| host["weight"] == 1)
    });
}

/// Holds whoever waits, until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn wait(&self) {
        let (open, changed) = &*self.0;
        let guard = open.lock().expect("not poisoned");
        let _opened = changed.wait_timeout_while(guard, Duration::from_secs(60), |open| !*open);
    }

    fn open(&self) {
        let (open, changed) = &*self.0;
        *open.lock().expect("not poisoned") = true;
        changed.notify_all();
    }
}

#[test]
fn least_request_avoids_a_workload_that_has_not_answered_yet() {
    let mesh = Mesh::start();
    let gate = Gate::default();
    let held = gate.clone();
    let slow = tcp_server(&mesh, move |stream| answer(stream, "slow", || held.wait()));
    mesh.service("app", &[("http", 80, "http")]);
    let slow = mesh.workload(Workload::new("app-1").port("http", slow));
    mesh.outsider(Workload::new("app-2").port("http", named(&mesh, "fast")));
    mesh.outsider(Workload::new("app-3").port("http", named(&mesh, "fast")));
    policy(&mesh, "{ algorithm: leastRequest }");
    let client = mesh.workload(Workload::new("client"));
    let port: u64 = slow.front("http").port().into();
    let busy = || hosts(&client).get(&port).map_or(0, |host| host["in_flight"].as_u64().unwrap_or_default());
    let mut requests = Vec::new();
    while busy() == 0 {
        let url = format!("http://{}/", client.outbound());
        let request = thread::spawn(move || curl(&[&url, "-H", "Host: app.shop"]));
        until("it is answered, or waits at the slow one", || request.is_finished() || busy() > 0);
        requests.push(request);
    }
    assert_eq!(busy(), 1, "one waits, the others went elsewhere");
    let answers: Vec<String> = (0..20).map(|_| who(&client, &[])).collect();
    assert!(answers.iter().all(|name| name == "fast"), "{answers:?}");
    assert_eq!(busy(), 1);
    gate.open();
    for request in requests {
        assert_eq!(request.join().expect("no panic").status, 200);
    }
    until("what was in flight is given back", || busy() == 0);
}

#[test]
fn peak_ewma_leaves_a_workload_that_fails_fast() {
    let mesh = Mesh::start();
    let failing = tcp_server(&mesh, |mut stream| {
        read_http_head(&mut stream);
        let _gone = stream.write_all(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    mesh.service("app", &[("http", 80, "http")]);
    mesh.outsider(Workload::new("app-1").port("http", failing));
    mesh.outsider(Workload::new("app-2").port("http", named(&mesh, "well")));
    mesh.outsider(Workload::new("app-3").port("http", named(&mesh, "well")));
    policy(&mesh, "{ algorithm: peakEwma }");
    let client = mesh.workload(Workload::new("client"));
    let url = format!("http://{}/", client.outbound());
    let status = || curl(&[&url, "-H", "Host: app.shop"]).status;
    until("all are known", || {
        status();
        hosts(&client).len() == 3 && client.admin_page("/clusters").contains("PeakEwma")
    });
    let failures = (0..30).filter(|_| status() == 503).count();
    assert!(failures <= 2, "{failures} of 30: a failure counts as 5 s");
}

/// Which application answers each of 40 users.
fn of_users(client: &Sidecar) -> Vec<String> {
    (0..40).map(|user| who(client, &["-H", &format!("x-user: user-{user}")])).collect()
}

#[test]
fn ring_hash_keeps_users_and_sessions_where_they_are_while_workloads_are_added() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    for (workload, name) in [("app-1", "one"), ("app-2", "two"), ("app-3", "three")] {
        mesh.outsider(Workload::new(workload).port("http", named(&mesh, name)));
    }
    policy(&mesh, "{ algorithm: ringHash, hashOn: [ { header: x-user }, { cookie: { name: sid, ttl: 1h } } ] }");
    let client = mesh.workload(Workload::new("client"));
    until_known(&client, 3, "RingHash");
    let users = of_users(&client);
    assert_eq!(of_users(&client), users, "they stay where they are");
    assert!(["one", "two", "three"].iter().all(|name| users.iter().any(|user| user == name)), "{users:?}");
    assert_eq!(ask(&client, &["-H", "x-user: a"]).header("set-cookie"), None, "a user needs no session");

    let sessions: Vec<(String, String)> = (0..20)
        .map(|_| {
            let first = ask(&client, &[]);
            let given = first.header("set-cookie").expect("a session").to_owned();
            assert!(given.ends_with("; Max-Age=3600; Path=/; HttpOnly"), "{given}");
            let cookie = given.split(';').next().expect("a pair").to_owned();
            (cookie, first.text())
        })
        .collect();
    let follow = |cookie: &str| {
        let response = ask(&client, &["-H", &format!("Cookie: other=1; {cookie}")]);
        assert_eq!(response.header("set-cookie"), None, "it has one");
        response.text()
    };
    assert!(sessions.iter().all(|(cookie, name)| follow(cookie) == *name));

    mesh.outsider(Workload::new("app-4").port("http", named(&mesh, "four")));
    until_known(&client, 4, "RingHash");
    let moved: Vec<(String, String)> =
        users.into_iter().zip(of_users(&client)).filter(|(before, after)| before != after).collect();
    assert!(moved.len() < 25, "about a quarter of 40: {moved:?}");
    assert!(moved.iter().filter(|(_, after)| after != "four").count() <= 10, "to the new one: {moved:?}");
    let stayed = sessions.iter().filter(|(cookie, name)| follow(cookie) == *name).count();
    assert!(stayed >= 8, "about 15 of 20: {stayed}");
}

#[test]
fn maglev_keeps_what_has_the_same_parameter_or_source() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http"), ("tcp", 7000, "tcp")]);
    for (workload, name) in [("app-1", "1"), ("app-2", "2"), ("app-3", "3")] {
        let greeting = tcp_server(&mesh, move |mut stream| drop(stream.write_all(name.as_bytes())));
        mesh.outsider(Workload::new(workload).port("http", named(&mesh, name)).port("tcp", greeting));
    }
    policy(&mesh, "{ algorithm: maglev, hashOn: [ { queryParam: cart }, { sourceAddress: true } ] }");
    let client = mesh.workload(Workload::new("client").tcp("app.shop:7000"));
    until_known(&client, 3, "Maglev");
    let of = |cart: &str| {
        let url = format!("http://{}/?a=b&cart={cart}", client.outbound());
        curl(&[&url, "-H", "Host: app.shop"]).text()
    };
    let carts: Vec<String> = (0..30).map(|cart| of(&cart.to_string())).collect();
    assert_eq!((0..30).map(|cart| of(&cart.to_string())).collect::<Vec<_>>(), carts);
    assert!(["1", "2", "3"].iter().all(|name| carts.iter().any(|cart| cart == name)), "{carts:?}");
    let here = who(&client, &[]);
    assert!((0..10).all(|_| who(&client, &[]) == here), "without a cart, by the source");
    let greet = || {
        let mut name = String::new();
        let _reset = connect(client.tcp("app.shop:7000")).read_to_string(&mut name);
        name
    };
    until("connections are made", || !greet().is_empty());
    let here = greet();
    assert!((0..10).all(|_| greet() == here));
}

#[test]
fn random_uses_all() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    for (workload, name) in [("app-1", "1"), ("app-2", "2"), ("app-3", "3")] {
        mesh.outsider(Workload::new(workload).port("http", named(&mesh, name)));
    }
    policy(&mesh, "{ algorithm: random }");
    let client = mesh.workload(Workload::new("client"));
    until_known(&client, 3, "Random");
    let answers: Vec<String> = (0..60).map(|_| who(&client, &[])).collect();
    let count = |name: &str| answers.iter().filter(|answer| *answer == name).count();
    assert!(["1", "2", "3"].iter().all(|name| count(name) >= 4), "{answers:?}");
    assert!(answers.windows(2).any(|pair| pair[0] == pair[1]), "not in turn: {answers:?}");
}

#[test]
fn below_the_panic_threshold_those_that_are_down_are_tried_too_and_no_request_is_lost() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    mesh.outsider(Workload::new("app-1").port("http", named(&mesh, "up")));
    mesh.outsider(Workload::new("app-2").port("http", mesh.free_address()));
    mesh.outsider(Workload::new("app-3").port("http", mesh.free_address()));
    let client = mesh.workload(Workload::new("client"));
    let panics = || {
        let clusters: Value = serde_json::from_str(&client.admin_page("/clusters")).unwrap();
        let counts = clusters.as_object().into_iter().flatten().filter_map(|(_, it)| it["picks_in_panic"].as_u64());
        counts.sum::<u64>()
    };
    until_known(&client, 3, "panic_threshold: 0");
    assert!((0..20).all(|_| who(&client, &[]) == "up"));
    assert_eq!(panics(), 0, "one is left");
    policy(&mesh, "{ panicThreshold: 50 }");
    until_known(&client, 3, "panic_threshold: 50");
    assert!((0..20).all(|_| who(&client, &[]) == "up"));
    assert!(panics() > 0);
    let counted = client.metric("pillion_picks_rescued_total", &[("reason", "panic")]);
    assert!((1.0..=panics() as f64).contains(&counted), "{counted}");
}

#[test]
fn a_caller_prefers_its_zone_and_goes_elsewhere_when_that_is_down() {
    let mesh = Mesh::start();
    mesh.service("app", &[("http", 80, "http")]);
    let mut east = python_app(&mesh, "http1.py", &["east"]);
    let west = python_app(&mesh, "http1.py", &["west"]);
    mesh.outsider(Workload::new("app-1").port("http", east.address).label(ZONE, "east"));
    mesh.outsider(Workload::new("app-2").port("http", west.address).label(ZONE, "west"));
    policy(&mesh, "{ zones: { preferOwn: true } }");
    let client = mesh.workload(Workload::new("client").label(ZONE, "east"));
    let zone = || ask(&client, &[]).header("x-app").map(str::to_owned).unwrap_or_default();
    until("both are known", || !zone().is_empty() && hosts(&client).len() == 2);
    assert!((0..10).all(|_| zone() == "east"));
    // It moves, and is told anew.
    mesh.edit("workload-client.yaml", &format!("{ZONE}: east"), &format!("{ZONE}: west"));
    until("its own zone is the other one", || (0..10).all(|_| zone() == "west"));
    mesh.edit("workload-client.yaml", &format!("{ZONE}: west"), &format!("{ZONE}: east"));
    until("and back", || (0..10).all(|_| zone() == "east"));
    // Another caller is told by its settings.
    let other = mesh.workload(Workload::new("other").setting("zone", "west"));
    let its_zone = || ask(&other, &[]).header("x-app").map(str::to_owned);
    assert!((0..10).all(|_| its_zone().as_deref() == Some("west")));

    east.process.kill();
    assert!((0..20).all(|_| zone() == "west"), "every request was answered, by the other zone");
    let clusters: Value = serde_json::from_str(&client.admin_page("/clusters")).unwrap();
    let spilled = clusters.as_object().into_iter().flatten().filter_map(|(_, it)| it["picks_spilled_over"].as_u64());
    assert!(spilled.sum::<u64>() > 0, "{clusters}");
}

#[test]
fn tcp_connections_go_where_fewest_are() {
    let mesh = Mesh::start();
    let greeting = |name: &'static str| {
        tcp_server(&mesh, move |mut stream| {
            let _gone = stream.write_all(name.as_bytes());
            let _held = stream.read(&mut [0]); // Until the client closes.
        })
    };
    mesh.service("app", &[("tcp", 7000, "tcp")]);
    mesh.outsider(Workload::new("app-1").port("tcp", greeting("1")));
    let _two = mesh.workload(Workload::new("app-2").port("tcp", greeting("2")));
    policy(&mesh, "{ algorithm: leastConnections }");
    let client = mesh.workload(Workload::new("client").tcp("app.shop:7000"));
    let open = || {
        let mut stream = connect(client.tcp("app.shop:7000"));
        let mut name = [0];
        stream.read_exact(&mut name).map(|()| (name[0], stream))
    };
    let idle = || hosts(&client).values().all(|host| host["in_flight"] == 0);
    until("both are known", || {
        drop(open());
        hosts(&client).len() == 2 && client.admin_page("/clusters").contains("full_scan: true")
    });
    until("nothing is open", idle);
    let mut held: Vec<_> = (0..10).map(|_| open().expect("a connection")).collect();
    assert_eq!(held.iter().filter(|(name, _)| *name == b'1').count(), 5);
    // Those of one go; the next ones take their places.
    held.retain(|(name, _)| *name == b'2');
    until("five are open", || hosts(&client).values().filter_map(|host| host["in_flight"].as_u64()).sum::<u64>() == 5);
    assert!((0..5).map(|_| open().expect("a connection")).collect::<Vec<_>>().iter().all(|(name, _)| *name == b'1'));
}
