//! The access log: its forms, its file and what becomes of it when that is in trouble.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use regex::Regex;
use serde_json::{Value, json};

use crate::support::{App, Mesh, Sidecar, Workload, curl, nginx, until};

/// Envoy's default line, as its documentation describes it.
const ENVOY: &str = r#"^\[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\] "(\S+) (\S+) (\S+)" (\d+) (\S+) (\d+) (\d+) (\d+) (\d+|-) "([^"]*)" "([^"]*)" "([^"]*)" "([^"]*)" "([^"]*)"$"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Stage {
    mesh: Mesh,
    _app: App,
    _server: Sidecar,
    client: Sidecar,
}

/// A client with these settings, and an application that answers JSON.
fn stage(settings: &[(&str, Value)]) -> Stage {
    let mesh = Mesh::start();
    stage_in(mesh, settings)
}

fn stage_in(mesh: Mesh, settings: &[(&str, Value)]) -> Stage {
    let app = nginx(&mesh, "location / { return 200 ok; }");
    mesh.service("app", &[("http", 80, "http")]);
    let server = mesh.workload(Workload::new("app").setting("access_log", "off").port("http", app.address));
    let client =
        settings.iter().fold(Workload::new("client"), |client, (name, value)| client.setting(name, value.clone()));
    let client = mesh.workload(client);
    Stage { mesh, _app: app, _server: server, client }
}

fn get(stage: &Stage, path: &str, more: &[&str]) -> u16 {
    let url = format!("http://{}{path}", stage.client.outbound());
    let arguments = [&[url.as_str(), "-H", "Host: app.shop", "-A", "test/1 \"quoted\""], more].concat();
    curl(&arguments).status
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn json_has_envoys_names_and_a_parser_reads_every_line() {
    let mesh = Mesh::start();
    let path = mesh.scratch().join("access.json");
    let stage = stage_in(mesh, &[("access_log_file", json!(path))]);
    let trace = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
    assert_eq!(get(&stage, "/a?secret=1", &["-H", &trace, "-H", "X-Request-Id: r-1", "-d", "12345"]), 200);
    assert_eq!(curl(&[&format!("http://{}/", stage.client.outbound()), "-H", "Host: nobody.shop"]).status, 502);
    until("both lines are there", || lines(&path).len() == 2);
    let all: Vec<Value> = lines(&path).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (good, bad) = (&all[0], &all[1]);
    for (name, wanted) in [
        ("method", json!("POST")),
        ("path", json!("/a")),
        ("protocol", json!("HTTP/1.1")),
        ("authority", json!("app.shop")),
        ("response_code", json!(200)),
        ("response_flags", json!("-")),
        ("response_code_details", json!("via_upstream")),
        ("bytes_received", json!(5)),
        ("user_agent", json!("test/1 \"quoted\"")),
        ("request_id", json!("r-1")),
        ("upstream_cluster", json!("app.shop:80")),
        ("direction", json!("outbound")),
        ("destination", json!("app.shop:80")),
        ("peer", json!("spiffe://cluster.local/ns/shop/sa/app")),
        ("attempts", json!(1)),
        ("trace_id", json!(TRACE)),
    ] {
        assert_eq!(good[name], wanted, "{name}: {good}");
    }
    assert!(
        good["upstream_service_time"].is_u64() && good["duration"].is_u64() && good["bytes_sent"].as_u64() > Some(0)
    );
    assert!(Regex::new(r"^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z$").unwrap().is_match(good["start_time"].as_str().unwrap()));
    assert_eq!((&bad["response_code_details"], &bad["response_flags"]), (&json!("unknown_destination"), &json!("NC")));
}

#[test]
fn content_that_was_announced_and_never_came_is_not_counted() {
    let mesh = Mesh::start();
    let path = mesh.scratch().join("access.json");
    let stage = stage_in(mesh, &[("access_log_file", json!(path))]);
    let mut liar = TcpStream::connect(stage.client.outbound()).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: app.shop\r\nContent-Length: 18446744073709551000\r\n\r\n12345";
    liar.write_all(head.as_bytes()).unwrap();
    let host = stage.client.outbound();
    liar.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    liar.read_exact(&mut [0]).unwrap(); // An answer, which waits for no content.
    drop(liar);
    assert_eq!(curl(&[&format!("http://{host}/"), "-H", "Host: app.shop", "-d", "1234567"]).status, 200);
    until("both lines are there", || lines(&path).len() == 2);
    let received =
        |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["bytes_received"].as_u64().unwrap();
    let mut all: Vec<u64> = lines(&path).iter().map(received).collect();
    all.sort_unstable();
    assert!(all[0] <= 5 && all[1] == 7, "{all:?}");
}

#[test]
fn text_is_envoys_default_line_and_nobody_can_forge_one() {
    let stage = stage(&[("access_log_format", json!("text")), ("access_log_file", json!("stdout"))]);
    // A header value may hold a tab, which ends nothing in HTTP.
    assert_eq!(get(&stage, "/x", &["-H", "X-Request-Id: a\"\tb\\ [2026] \"GET / HTTP/1.1\" 200"]), 200);
    let envoy = Regex::new(ENVOY).unwrap();
    let found =
        || stage.client.process.stdout().lines().find_map(|line| envoy.captures(line).map(|all| all[0].to_owned()));
    until("the line is there", || found().is_some());
    let line = found().unwrap();
    let parts = envoy.captures(&line).unwrap();
    assert_eq!((&parts[2], &parts[3], &parts[4], &parts[5], &parts[6]), ("GET", "/x", "HTTP/1.1", "200", "-"));
    assert_eq!(&parts[11], "-", "no x-forwarded-for");
    assert_eq!(&parts[12], "test/1 \\x22quoted\\x22");
    assert_eq!(&parts[13], "a\\x22\\x09b\\x5c [2026] \\x22GET / HTTP/1.1\\x22 200");
    assert_eq!(&parts[14], "app.shop");
}

#[test]
fn a_format_of_ones_own_names_what_it_wants() {
    let format = "%REQ(X-NONE?X-SHOP):3%|%RESPONSE_CODE_DETAILS%|%UPSTREAM_CLUSTER%|%PILLION(peer)%|%ROUTE_NAME%";
    let mesh = Mesh::start();
    let path = mesh.scratch().join("own.log");
    let stage = stage_in(mesh, &[("access_log_format", json!(format)), ("access_log_file", json!(path))]);
    assert_eq!(get(&stage, "/", &["-H", "X-Shop: abcdef"]), 200);
    until("the line is there", || !lines(&path).is_empty());
    assert_eq!(lines(&path), ["abc|via_upstream|app.shop:80|spiffe://cluster.local/ns/shop/sa/app|default"]);
}

#[test]
fn a_sample_holds_all_errors_and_whole_traces() {
    let stage = stage(&[("access_log", json!("sampled:50%"))]);
    for number in 0..40_u128 {
        let trace = number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) | 1;
        let trace = format!("traceparent: 00-{trace:032x}-00f067aa0ba902b7-01");
        for _call in 0..2 {
            assert_eq!(get(&stage, "/sampled", &["-H", &trace]), 200);
        }
    }
    assert_eq!(curl(&[&format!("http://{}/", stage.client.outbound()), "-H", "Host: nobody.shop"]).status, 502);
    let log = || stage.client.access_log();
    until("the error is there", || log().iter().any(|line| line["response_code"] == 502));
    let mut traces = std::collections::BTreeMap::<String, usize>::new();
    for line in log().iter().filter(|line| line["path"] == "/sampled") {
        *traces.entry(line["trace_id"].to_string()).or_default() += 1;
    }
    assert!((5..36).contains(&traces.len()), "{traces:?}");
    assert!(traces.values().all(|calls| *calls == 2), "a trace is there whole or not at all: {traces:?}");
}

#[test]
fn rotation_under_load_loses_no_line() {
    let mesh = Mesh::start();
    let path = mesh.scratch().join("rotated.log");
    let stage = stage_in(mesh, &[("access_log_file", json!(path))]);
    let done = AtomicBool::new(false);
    let (mut rotations, mut asked) = (0, 0);
    let outbound = stage.client.outbound();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            for _round in 0..20 {
                let url = format!("http://{outbound}/load/[1-25]");
                let said = curl(&[&url, "-H", "Host: app.shop"]);
                assert_eq!(said.status, 200);
            }
            done.store(true, Ordering::Release);
            20 * 25
        });
        while !done.load(Ordering::Acquire) && rotations < 50 {
            until("the file is there", || path.exists() || done.load(Ordering::Acquire));
            if path.exists() {
                fs::rename(&path, path.with_extension(format!("log.{rotations}"))).expect("moved");
                stage.client.process.signal(Signal::SIGHUP);
                rotations += 1;
            }
        }
        asked = load.join().expect("the load ends well");
    });
    assert!(rotations > 1, "{rotations}");
    let everything = || {
        let old = (0..rotations).map(|at| path.with_extension(format!("log.{at}")));
        old.chain([path.clone()]).flat_map(|file| lines(&file)).collect::<Vec<_>>()
    };
    until("every line is somewhere", || everything().len() == asked);
    assert!(everything().iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(stage.client.metric("pillion_access_log_dropped_total", &[]), 0.0);
}

#[test]
fn a_full_disk_costs_lines_but_no_request() {
    let mesh = Mesh::start();
    let disk = mesh.scratch().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"]).arg(&disk).status();
    let is_mounted = mounted.is_ok_and(|status| status.success());
    let path = if is_mounted { disk.join("full.log") } else { Path::new("/dev/full").to_owned() };
    let stage = stage_in(mesh, &[("access_log_file", json!(path))]);
    for _round in 0..8 {
        let url = format!("http://{}/load/[1-25]", stage.client.outbound());
        assert_eq!(curl(&[&url, "-H", "Host: app.shop", "--fail-early", "-f"]).status, 200);
    }
    until("lines are lost and counted", || stage.client.metric("pillion_access_log_dropped_total", &[]) > 0.0);
    let said = || stage.client.process.log().matches("the access log cannot be written").count();
    until("that is said", || said() > 0);
    if is_mounted {
        let kept = lines(&path);
        fs::write(&path, "").expect("room again");
        get(&stage, "/after", &[]);
        until("it goes on", || lines(&path).iter().any(|line| line.contains("/after")));
        assert!(stage.client.process.log().contains("the access log is written again"));
        assert!(kept.len() > 5, "{}", kept.len());
        let last = lines(&path).into_iter().rfind(|line| !line.is_empty()).unwrap();
        assert!(serde_json::from_str::<Value>(&last).is_ok(), "a torn line is ended before the next: {last}");
    }
    assert_eq!(said(), 1, "once");
    let Stage { client, mesh, .. } = stage;
    drop(client);
    if is_mounted {
        let _unmounted = Command::new("umount").arg("-l").arg(&disk).status();
    }
    drop(mesh);
}

#[test]
fn a_reader_that_has_gone_costs_no_request() {
    let mesh = Mesh::start();
    let pipe = mesh.scratch().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    // Kept open both ways, so that opening waits for nobody; a reader that does not read is a slow one.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a reader");
    let stage = stage_in(mesh, &[("access_log_file", json!(pipe))]);
    for _round in 0..4 {
        let url = format!("http://{}/load/[1-50]", stage.client.outbound());
        assert_eq!(curl(&[&url, "-H", "Host: app.shop"]).status, 200);
    }
    drop(reader);
    until("lines are lost and counted", || {
        get(&stage, "/gone", &[]) == 200 && stage.client.metric("pillion_access_log_dropped_total", &[]) > 0.0
    });
    assert!(stage.client.process.resident_kib() < 200_000);
}

#[test]
fn a_reader_of_standard_error_that_has_stopped_costs_no_request() {
    let mesh = Mesh::start();
    let pipe = mesh.scratch().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("one that does not read");
    let app = nginx(&mesh, "location / { return 200 ok; }");
    mesh.service("app", &[("http", 80, "http")]);
    let _server = mesh.workload(Workload::new("app").port("http", app.address));
    let client = Workload::new("client").log_to(&pipe).setting("access_log", "all").setting("log", "debug");
    let client = mesh.workload(client);
    let url = format!("http://{}/[1-100]", client.outbound());
    until("the pipe is full, and so is what waits for it", || {
        assert_eq!(curl(&[&url, "-H", "Host: app.shop"]).status, 200);
        client.metric("pillion_log_dropped_total", &[]) > 0.0
    });
    assert_eq!(curl(&[&url, "-H", "Host: app.shop"]).status, 200);
}
