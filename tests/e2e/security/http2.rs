//! HTTP/2 as an attacker speaks it, on the outbound port in plaintext and on the mesh port with a good certificate:
//! memory stays bounded, a connection that floods is ended with GOAWAY, and others are served.

use serde_json::{Value, json};

use super::{Credentials, certificate};
use crate::support::{
    Mesh, Process, Recorder, Sidecar, Workload, curl, in_workspace, nginx, python, python_json, talk, until,
};

/// What a sidecar may use at most, whatever its clients do.
const MOST_KIB: u64 = 256 << 10;

const ENHANCE_YOUR_CALM: u64 = 11;

/// An application, its sidecar and a client's sidecar.
struct Stage {
    mesh: Mesh,
    app: Recorder,
    server: Sidecar,
    client: Sidecar,
    attacker: Credentials,
}

impl Stage {
    fn new() -> Self {
        let mesh = Mesh::start();
        let app = Recorder::start(mesh.ip());
        mesh.service("app", &[("http", 80, "http")]);
        let server = mesh.workload(Workload::new("app").port("http", app.address));
        let client = mesh.workload(Workload::new("client"));
        let attacker = certificate(&mesh, &mesh.state(), "attacker", &[]);
        Self { mesh, app, server, client, attacker }
    }

    /// The attacks on the outbound port, and on the mesh port; each must leave the sidecar working and small.
    fn attack(&self, names: &[&str], check: impl Fn(&str, &Value)) {
        let outbound = json!({ "to": self.client.outbound().to_string(), "authority": "app.shop", "attacks": names });
        let port = self.server.front("http").port().to_string();
        let mesh = self.attacker.with(json!({
            "to": self.server.mesh().to_string(),
            "authority": "app.shop",
            "fields": [["x-pillion-port", port]],
            "attacks": names,
        }));
        for job in [outbound, mesh] {
            let ends = python_json("h2_hostile.py", &job);
            for name in names {
                check(name, &ends[name]);
            }
            let response = curl(&[&format!("http://{}/others", self.client.outbound()), "-H", "Host: app.shop"]);
            assert_eq!(response.status, 200, "after {names:?}: {response:?}");
        }
        for sidecar in [&self.client, &self.server] {
            assert!(sidecar.process.peak_kib() < MOST_KIB, "{} KiB after {names:?}", sidecar.process.peak_kib());
        }
    }

    fn refused(&self, reason: &str, count: usize) {
        for sidecar in [&self.client, &self.server] {
            until(&format!("{count} connections refused: {reason}"), || {
                let counted = sidecar.metric("pillion_connections_refused_total", &[("reason", reason)]) as usize;
                let told = sidecar.process.events("refused");
                counted == count && told.iter().filter(|line| line["reason"] == reason).count() == count
            });
        }
    }
}

#[test]
fn floods_of_streams_end_with_goaway() {
    let stage = Stage::new();
    let names = ["rapid_reset", "reset_by_error", "continuation_flood", "empty_continuations"];
    stage.attack(&names, |name, end| assert_eq!(end["goaway"], ENHANCE_YOUR_CALM, "{name}: {end}"));
    stage.refused("http2_flood", names.len());
}

#[test]
fn floods_of_small_frames_are_bounded_and_hold_up_nobody() {
    let stage = Stage::new();
    let names = [
        "ping_flood",
        "settings_flood",
        "priority_flood",
        "unknown_flood",
        "empty_data_flood",
        "deaf_flood",
        "many_streams",
    ];
    stage.attack(&names, |name, end| {
        // Either the connection is ended for it, or it still serves; a peer that is just forgotten is neither.
        let ended = end["goaway"].is_u64() || end["closed"] == true;
        let refused = end["resets"].as_object().is_some_and(|codes| !codes.is_empty());
        assert!(ended || end["alive"] == true || refused || name == "deaf_flood", "{name}: {end}");
    });
}

#[test]
fn a_head_that_is_too_large_costs_its_stream_and_a_compression_bomb_its_connection() {
    let stage = Stage::new();
    stage.attack(&["large_head", "hpack_bomb"], |name, end| {
        if name == "large_head" {
            assert_eq!((&end["alive"], &end["statuses"]["431"]), (&json!(true), &json!(1)), "{name}: {end}");
        } else {
            assert_eq!(end["goaway"], ENHANCE_YOUR_CALM, "{name}: {end}");
        }
    });
    stage.refused("http2_flood", 1);
    let bombs = stage.app.heads().iter().filter(|head| head.matches("x-bomb").count() > 1).count();
    assert_eq!(bombs, 0, "no bomb reached the application");
}

#[test]
fn a_broken_protocol_ends_its_connection_with_goaway() {
    let stage = Stage::new();
    let names = [
        "oversized_frame",
        "window_overflow",
        "data_on_idle",
        "even_stream",
        "stream_zero",
        "push",
        "bad_hpack",
        "zero_update",
        "huge_table",
        "bad_settings",
        "bad_ping",
        "stray_continuation",
        "interleaved",
    ];
    stage.attack(&names, |name, end| {
        let code = end["goaway"].as_u64().unwrap_or(0);
        // PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, COMPRESSION.
        assert!([1, 3, 5, 6, 9].contains(&code), "{name}: {end}");
    });
    stage.refused("bad_http", names.len());
}

#[test]
fn malformed_http2_requests_never_become_http1_requests() {
    let stage = Stage::new();
    stage.attack(&["malformed"], |name, end| {
        assert_eq!((&end["alive"], &end["statuses"]["200"]), (&json!(true), &Value::Null), "{name}: {end}");
    });
    let requests = stage.app.requests();
    let expected = |request: &String| request == "GET /others";
    assert!(requests.iter().all(expected), "{requests:?}");
}

#[test]
fn responses_that_are_never_taken_do_not_stop_those_of_others() {
    let stage = Stage::new();
    let folder = stage.mesh.scratch().join("large");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("file"), vec![b'x'; 1 << 20]).expect("a file");
    let server = nginx(&stage.mesh, &format!("    root {};", folder.display()));
    stage.mesh.service("large", &[("http", 80, "http")]);
    let sidecar = stage.mesh.workload(Workload::new("large").port("http", server.address));
    let to = stage.client.outbound().to_string();
    let job = json!({ "to": to, "authority": "large.shop", "path": "/file", "attacks": ["stalled"] });
    let mut attack = python();
    attack.arg(in_workspace("tests/e2e/apps/h2_hostile.py")).arg(job.to_string());
    let mut attack = Process::spawn("h2_hostile.py", &mut attack);
    assert_eq!(attack.ready()["stalled"], 90);

    let response = curl(&[&format!("http://{to}/file"), "-H", "Host: large.shop", "--max-time", "20"]);

    assert_eq!((response.status, response.body.len()), (200, 1 << 20), "{}", response.message);
    for sidecar in [&stage.client, &sidecar] {
        assert!(sidecar.process.peak_kib() < MOST_KIB, "{} KiB", sidecar.process.peak_kib());
    }
}

#[test]
fn an_http2_client_that_says_nothing_is_let_go() {
    let mesh = Mesh::start();
    let settings = |workload: Workload| workload.setting("idle_timeout", "300ms").setting("head_timeout", "300ms");
    let client = mesh.workload(settings(Workload::new("client")));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let began = tokio::time::Instant::now();
    // Neither a mute client, nor one that greets and then answers nothing.
    talk(client.outbound(), preface);
    talk(client.outbound(), &[&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
    until("none is open", || client.metric("pillion_connections_open", &[("listener", "outbound_http")]) == 0.0);
}
