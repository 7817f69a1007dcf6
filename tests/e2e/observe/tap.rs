//! `pillion tap`: what it shows, what it never shows, and what a slow reader costs.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::{Pair, lines};
use crate::control::certificates;
use crate::support::{python_json, until};

#[test]
fn a_tap_sees_exactly_the_requests_that_match_from_both_ends_and_no_secrets() {
    let pair = Pair::start();
    pair.wait_until_observed();
    let fields = ["--output", "json", "--header", "x-request-id"];
    let failures = pair.tap(&[&fields[..], &["--status", "5xx", "--path", "/fail", "--to", "orders"]].concat());
    let posts = pair.tap(&[&fields[..], &["--method", "post", "--from", "client", "--direction", "inbound"]].concat());
    let nothing = pair.tap(&["--output", "json", "--from", "orders"]);
    let secrets = ["-H", "Authorization: Bearer secret", "-H", "Cookie: secret=1", "-H", "X-Api-Key: secret"];
    let send = |path: &str, id: &str, more: &[&str]| {
        let id = format!("X-Request-Id: {id}");
        pair.get(path, &[&secrets[..], &["-H", &id], more].concat())
    };
    assert_eq!(send("/fine?token=secret", "a", &[]), 200);
    assert_eq!(send("/fail/1?token=secret", "b", &[]), 503);
    assert_eq!(send("/fine", "c", &["-X", "POST", "-d", "secret"]), 200);
    assert_eq!(send("/fail/2", "d", &[]), 503);
    until("both ends of both failures", || lines(&failures).len() >= 4);
    until("the post", || !lines(&posts).is_empty());

    let id = |event: &Value| -> String {
        let fields = event["request_headers"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == "x-request-id").unwrap()["value"].as_str().unwrap().to_owned()
    };
    let seen = |events: &[Value]| -> BTreeSet<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        events.iter().map(|event| (id(event), text(&event["direction"]), text(&event["workload"]))).collect()
    };
    let both = |id: &str| {
        [("outbound", "shop/client"), ("inbound", "shop/orders-1")].map(|(a, b)| (id.into(), a.into(), b.into()))
    };
    assert_eq!(seen(&lines(&failures)), both("b").into_iter().chain(both("d")).collect());
    assert_eq!(seen(&lines(&posts)), [("c".into(), "inbound".into(), "shop/orders-1".into())].into());
    assert!(nothing.stdout().is_empty());

    let events = lines(&failures);
    for event in &events {
        assert_eq!((&event["response_code"], &event["tls"]), (&503.into(), &"mutual".into()), "{event}");
        assert!(event["path"].as_str().unwrap().starts_with("/fail/"), "{event}");
        let names: BTreeSet<&str> =
            event["request_headers"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
        assert!(names.contains("authorization") && names.contains("cookie"), "names are shown: {event}");
    }
    for tap in [&failures, &posts] {
        assert!(!tap.stdout().contains("secret"), "{}", tap.stdout());
    }
}

#[test]
fn lines_for_people_end_after_as_many_as_were_wanted_and_mistakes_are_explained() {
    let pair = Pair::start();
    pair.wait_until_observed();
    let mut tap = pair.tap(&["--max", "2"]);
    assert_eq!(pair.get("/hello?a=1", &[]), 200);
    assert!(tap.wait().success());
    let text = tap.stdout();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("→ shop/client") && text.contains("← shop/orders-1"), "{text}");
    assert!(text.contains("orders.shop/hello ") && text.contains(" 200 ") && text.contains("mTLS"), "{text}");
    until("the taps are closed", || pair.taps() == 0);

    let mut running = pair.tap(&[]);
    running.signal(Signal::SIGINT);
    assert!(running.wait().success(), "Ctrl-C is how a tap ends");
    until("the taps are closed", || pair.taps() == 0);

    let admin = pair.mesh.admin_address().to_string();
    for (arguments, wanted) in [
        (["--header", "authorization"], "may be a secret"),
        (["--status", "lots"], "5xx"),
        (["--slower", "1"], "100ms"),
    ] {
        let mut command = crate::support::pillion();
        let output = crate::support::output(command.args(["tap", "--control-plane-admin", &admin]).args(arguments));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(wanted), "{arguments:?}: {words}");
    }
    let nobody = pair.mesh.free_address().to_string();
    let output = crate::support::output(crate::support::pillion().args(["tap", "--control-plane-admin", &nobody]));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("no control plane at"), "{words}");
}

#[test]
fn a_reader_that_stalls_costs_no_request_and_is_told_what_it_lost() {
    const CLIENTS: usize = 4;
    const EACH: usize = 2500;
    let pair = Pair::start();
    pair.wait_until_observed();
    // It asks, and then does not read; little fits in between.
    let stalled = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stalled.set_recv_buffer_size(4096).unwrap();
    stalled.connect(&pair.mesh.admin_address().into()).unwrap();
    let mut stalled = TcpStream::from(stalled);
    stalled.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stalled.write_all(b"GET /api/v1/tap?path=/load HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    until("both sidecars are tapped", || pair.taps() == 2);

    let to = pair.client.outbound();
    let load: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(move || requests(to, EACH))).collect();
    for client in load {
        client.join().unwrap();
    }
    let (mut events, mut lost) = (0, 0);
    let mut reader = BufReader::new(stalled);
    let mut line = String::new();
    while events + lost < 2 * (CLIENTS * EACH) as u64 {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the tap ended after {events} events, {lost} lost");
        // Between the lines are those of the chunked coding.
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        lost += value["lost"].as_u64().unwrap_or(0);
        events += u64::from(value["path"] == "/load");
    }
    assert_eq!(events + lost, 2 * (CLIENTS * EACH) as u64);
    assert!(lost > 0 && events > 0, "{events} events, {lost} lost");
    drop(reader);
    until("the taps are closed", || pair.taps() == 0);
}

/// Sends requests one after the other on one connection; each must be answered with 200.
fn requests(to: SocketAddr, count: usize) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut received = [0; 2048];
    for _ in 0..count {
        stream.write_all(b"GET /load HTTP/1.1\r\nHost: orders.shop\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let length = stream.read(&mut received).unwrap();
            assert!(length > 0, "the connection ended: {}", answer.escape_ascii());
            answer.extend_from_slice(&received[..length]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    }
}

#[test]
fn a_tap_goes_on_when_the_control_plane_comes_back() {
    let pair = Pair::start();
    pair.wait_until_observed();
    let tap = pair.tap(&["--output", "json", "--path", "/before,"]);
    let tap_after = pair.tap(&["--output", "json"]);
    assert_eq!(pair.get("/before", &[]), 200);
    until("the request is seen", || lines(&tap_after).len() >= 2);
    pair.mesh.kill_control_plane();
    until("the tap says so", || tap_after.log().contains("trying again"));
    until("nobody taps any more", || pair.taps() == 0);
    assert_eq!(pair.get("/meanwhile", &[]), 200);
    pair.mesh.start_control_plane();
    until("both taps are back", || pair.taps() == 4);
    assert_eq!(pair.get("/after", &[]), 200);
    let ends = |path: &str| lines(&tap_after).iter().filter(|event| event["path"] == path).count();
    until("the request is seen from both ends", || ends("/after") == 2);
    assert_eq!((ends("/before"), ends("/meanwhile")), (2, 0));
    assert!(tap.stdout().is_empty());
}

#[test]
fn a_sidecar_speaks_for_itself_alone() {
    let pair = Pair::start();
    pair.wait_until_observed();
    let folder = certificates(&pair.mesh, "probe");
    let ask = |load: bool, name: &str, workload: &str, account: &str| {
        let node = json!({
            "id": format!("shop/{workload}"),
            "userAgentName": "pillion",
            "metadata": { "namespace": "shop", "workload": workload, "serviceAccount": account },
        });
        let address = pair.mesh.control_plane_address().to_string();
        python_json(
            "observe.py",
            &json!({
                "address": address, "folder": folder, "name": name, "node": node, "load": load,
            }),
        )
    };
    let connect = |name: &str, workload: &str, account: &str| ask(false, name, workload, account);
    let reported = ask(true, "probe", "orders-1", "probe");
    assert_eq!(reported["code"], "PERMISSION_DENIED", "nobody reports as another account's workload: {reported}");
    assert!(ask(true, "probe", "probe", "probe")["asked"].is_string(), "for itself it may");
    assert_eq!(connect("", "probe", "probe")["code"], "UNAUTHENTICATED");
    assert_eq!(connect("probe", "client", "client")["code"], "PERMISSION_DENIED");
    let stolen = connect("probe", "orders-1", "probe");
    assert_eq!(stolen["code"], "PERMISSION_DENIED", "its name belongs to another account: {stolen}");
    let node_only = connect("probe", "not a name", "probe");
    assert_eq!(node_only["code"], "INVALID_ARGUMENT", "{node_only}");
    // For itself it may: a tap that is open asks it, as all others.
    let _tap = pair.tap(&["--path", "/nothing"]);
    let asked = connect("probe", "probe", "probe");
    assert!(asked["asked"].as_str().is_some_and(|bytes| bytes.contains(&hex("/nothing"))), "{asked}");
    assert_eq!(pair.get("/", &[]), 200);
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
