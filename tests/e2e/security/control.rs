//! The control plane's port in the hands of somebody who wants more than is his: tokens, requests for certificates,
//! other workloads' configuration, connections that say nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Credentials, another_ca, certificate, openssl};
use crate::support::{Mesh, Workload, curl, output, pillion, python_files, python_json, run, until};

/// What the control plane answered to each case of `control_client.py`.
fn ask(mesh: &Mesh, cases: &[Value]) -> Vec<Value> {
    let job = json!({ "to": mesh.control_plane_address().to_string(), "root": mesh.root(), "cases": cases });
    // Too long for a command line, some of them.
    let file = mesh.secret_file("job", &job.to_string());
    let answers = python_json_file("control_client.py", &file);
    answers.as_array().expect("a list").clone()
}

fn python_json_file(name: &str, file: &std::path::Path) -> Value {
    let mut command = crate::support::python();
    command.arg(crate::support::in_workspace("tests/e2e/apps").join(name)).arg(format!("@{}", file.display()));
    serde_json::from_str(&run(&mut command)).expect("JSON")
}

/// A request made by openssl with a new key of this kind and these extensions.
fn csr(mesh: &Mesh, key: &[&str], extensions: &[&str]) -> String {
    let folder = tempfile::tempdir_in(mesh.scratch()).expect("a folder").keep();
    let config = folder.join("config");
    fs::write(&config, "[req]\ndistinguished_name=dn\n[dn]\n").expect("a file");
    let mut command = openssl();
    command.args(["req", "-new", "-nodes", "-subj", "/"]).arg("-config").arg(config).args(key);
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    run(command.arg("-keyout").arg(folder.join("key")))
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

#[test]
fn a_request_for_more_than_the_callers_own_identity_is_refused_counted_and_explained() {
    let mesh = Mesh::start();
    let token = mesh.token("shop", "orders");
    let with = |extensions: &[&str]| csr(&mesh, &P256, extensions);
    let own = format!("subjectAltName=URI:{}", id("orders"));
    let other = format!("subjectAltName=URI:{}", id("payment"));
    let both = format!("subjectAltName=URI:{},URI:{}", id("orders"), id("payment"));
    let dns = format!("subjectAltName=URI:{},DNS:localhost", id("orders"));
    let control_plane = "subjectAltName=URI:spiffe://cluster.local/ns/pillion-system/sa/pillion-control-plane";
    let curve = |name: &'static str| csr(&mesh, &["-newkey", "ec", "-pkeyopt", name], &[]);
    let good = with(&[]);
    let cases = [
        ("PERMISSION_DENIED", "other_name", json!({ "csr": with(&[&other]) })),
        ("PERMISSION_DENIED", "other_name", json!({ "csr": with(&[&both]) })),
        ("PERMISSION_DENIED", "other_name", json!({ "csr": with(&[&dns]) })),
        ("PERMISSION_DENIED", "other_name", json!({ "csr": with(&[control_plane]) })),
        ("PERMISSION_DENIED", "asks_for_ca", json!({ "csr": with(&["basicConstraints=critical,CA:TRUE"]) })),
        ("PERMISSION_DENIED", "asks_for_ca", json!({ "csr": with(&[&own, "basicConstraints=CA:TRUE,pathlen:0"]) })),
        ("INVALID_ARGUMENT", "other_extension", json!({ "csr": with(&["keyUsage=keyCertSign"]) })),
        ("INVALID_ARGUMENT", "other_extension", json!({ "csr": with(&["extendedKeyUsage=codeSigning"]) })),
        ("INVALID_ARGUMENT", "other_extension", json!({ "csr": with(&["nameConstraints=permitted;DNS:evil"]) })),
        ("INVALID_ARGUMENT", "weak_key", json!({ "csr": csr(&mesh, &["-newkey", "rsa:1024"], &[]) })),
        ("INVALID_ARGUMENT", "weak_key", json!({ "csr": curve("ec_paramgen_curve:secp256k1") })),
        ("INVALID_ARGUMENT", "weak_key", json!({ "csr": curve("ec_paramgen_curve:P-192") })),
        ("INVALID_ARGUMENT", "bad_signature", json!({ "csr": good, "tamper": true })),
        ("INVALID_ARGUMENT", "malformed", json!({ "csr": "garbage" })),
        ("INVALID_ARGUMENT", "malformed", json!({ "csr": "" })),
        ("INVALID_ARGUMENT", "malformed", json!({ "csr": fs::read_to_string(mesh.root()).expect("a root") })),
        ("INVALID_ARGUMENT", "oversize", json!({ "csr": format!("{good}{}", " ".repeat(16 << 10)) })),
    ];
    let mut asked: Vec<Value> = cases.iter().map(|(.., case)| case.clone()).collect();
    // These two are as they should be.
    asked.extend([json!({ "csr": good }), json!({ "csr": with(&[&own]), "seconds": 9_000_000 })]);
    for case in &mut asked {
        case["token"] = json!(token);
    }

    let answers = ask(&mesh, &asked);

    for ((code, reason, _), answer) in cases.iter().zip(&answers) {
        assert_eq!(answer["code"], *code, "{reason}: {answer}");
        let details = answer["details"].as_str().unwrap_or_default();
        assert!(details.starts_with("certificate request refused: "), "{reason}: {answer}");
        let same = cases.iter().filter(|(_, other, _)| other == reason).count();
        let labels = [("reason", *reason)];
        let counted = mesh.metrics().sum("pillion_control_plane_refused_certificates_total", &labels);
        assert_eq!(counted as usize, same, "{reason}");
    }
    let log = mesh.with_control_plane(|process| process.log());
    assert_eq!(log.matches("certificate request refused").count(), cases.len(), "{log}");
    for answer in &answers[cases.len()..] {
        assert_eq!(answer["code"], "OK", "{answer}");
        check_leaf(&mesh, answer["chain"][0].as_str().expect("a certificate"), &id("orders"));
    }
}

/// Only the caller's identity, no authority, a day at most.
fn check_leaf(mesh: &Mesh, pem: &str, identity: &str) {
    let file = mesh.secret_file("leaf", pem);
    let mut show = openssl();
    let text = run(show.args(["x509", "-noout", "-text", "-in"]).arg(&file));
    assert!(text.contains(&format!("URI:{identity}\n")), "{text}");
    assert!(text.contains("CA:FALSE") && !text.contains("Certificate Sign") && !text.contains("DNS:"), "{text}");
    let mut expires = openssl();
    let day = output(expires.args(["x509", "-noout", "-checkend", "86401", "-in"]).arg(&file));
    assert!(!day.status.success(), "no longer than 24 hours: {text}");
}

#[test]
fn callers_are_believed_by_one_sound_proof_only() {
    let mesh = Mesh::start();
    let good = csr(&mesh, &P256, &[]);
    let (orders, payment) = (mesh.token("shop", "orders"), mesh.token("shop", "payment"));
    let mint = |state: &std::path::Path, ttl: &str| {
        let mut command = pillion();
        command.args(["certs", "token", "--namespace", "shop", "--service-account", "orders", "--ttl", ttl, "--state"]);
        run(command.arg(state)).trim().to_owned()
    };
    let short = mint(&mesh.state(), "1s");
    let forged = mint(&mesh.scratch().join("another-state"), "1h");
    let (claims, mac) = (payment.rsplit_once('.').expect("a token").0, orders.rsplit_once('.').expect("a token").1);
    let made = certificate(&mesh, &mesh.state(), "orders", &[]);
    let token = |text: &str| json!({ "token": text });
    let mut cases = vec![
        ("no_credentials", json!({})),
        ("bad_scheme", json!({ "authorization": "Basic b3JkZXJzOm9yZGVycw==" })),
        ("malformed_token", token("garbage")),
        ("malformed_token", token(&format!("{orders}=="))),
        ("malformed_token", token(&"a".repeat(7000))),
        ("malformed_token", token(&orders.replace("v1", "v2"))),
        ("forged_token", token(&forged)),
        ("forged_token", token(&format!("{claims}.{mac}"))),
        ("contradiction", made.with(token(&payment))),
    ];
    until("the short token has expired", || {
        let answer = &ask(&mesh, &[json!({ "csr": good, "token": short })])[0];
        answer["details"].as_str().unwrap_or_default().contains("expired")
    });
    let expired = mesh.metrics().sum("pillion_control_plane_refused_calls_total", &[("reason", "expired_token")]);
    assert_eq!(expired, 1.0);
    for (_, case) in &mut cases {
        case["csr"] = json!(good);
    }
    let streams = [
        ("no_credentials", json!({ "names": ["a:1"] })),
        ("no_credentials", json!({ "names": ["a:1"], "sotw": true })),
    ];
    cases.extend(streams);

    let answers = ask(&mesh, &cases.iter().map(|(_, case)| case.clone()).collect::<Vec<_>>());

    for ((reason, _), answer) in cases.iter().zip(&answers) {
        assert_eq!(answer["code"], "UNAUTHENTICATED", "{reason}: {answer}");
        let same = cases.iter().filter(|(other, _)| other == reason).count();
        let counted = mesh.metrics().sum("pillion_control_plane_refused_calls_total", &[("reason", reason)]);
        assert_eq!(counted as usize, same, "{reason}");
    }
    let log = mesh.with_control_plane(|process| process.log());
    assert_eq!(log.matches("caller refused").count(), cases.len() + 1, "{log}");
    // Certificates that the mesh did not give, or that ran out, do not even get a connection.
    let foreign = certificate(&mesh, &another_ca(&mesh), "orders", &[]);
    let stranger = certificate(&mesh, &mesh.state(), "orders", &["--trust-domain", "other.example"]);
    let both = |made: &Credentials, token: &str| made.with(json!({ "csr": good, "token": token }));
    let answers = ask(&mesh, &[both(&foreign, &orders), both(&stranger, &orders), both(&made, &orders)]);
    assert_eq!(answers[0]["code"], "UNAVAILABLE", "{answers:?}");
    assert_eq!(answers[1]["code"], "UNAUTHENTICATED", "{answers:?}");
    assert_eq!(answers[2]["code"], "OK", "{answers:?}");
    let metrics = mesh.metrics();
    assert!(metrics.sum("pillion_control_plane_connections_total", &[("outcome", "handshake_failed")]) >= 1.0);
    assert_eq!(metrics.sum("pillion_control_plane_refused_calls_total", &[("reason", "other_trust_domain")]), 1.0);
}

#[test]
fn another_workloads_inbound_configuration_is_refused_counted_and_explained() {
    let mesh = Mesh::start();
    let files = python_files(&mesh);
    let orders = mesh.workload(Workload::new("orders").port("http", files.address));
    let name = format!("pillion/inbound?xds.resource.listening_address={}", orders.mesh());
    let own = certificate(&mesh, &mesh.state(), "orders", &[]);
    let thief = certificate(&mesh, &mesh.state(), "payment", &[]);
    let node = |workload: &str, account: &str| json!({ "names": [name], "node": ["shop", workload, account] });
    let long = "a".repeat(1025);
    let mut foreign_dialect = thief.with(node("orders", "orders"));
    foreign_dialect["agent"] = json!("envoy");
    let many: Vec<String> = (0..20_001).map(|number| format!("s{number}.shop:80")).collect();
    let huge: Vec<String> = (0..6000).map(|number| format!("{number:0>1000}.shop:80")).collect();
    let cases = [
        own.with(node("orders", "orders")),
        thief.with(node("payment", "payment")),
        thief.with(node("orders", "orders")),
        foreign_dialect,
        own.with(node("orders-2", "orders")),
        own.with(json!({ "names": [long], "node": ["shop", "orders", "orders"] })),
        own.with(json!({ "names": many, "node": ["shop", "orders", "orders"] })),
        own.with(json!({ "names": huge, "node": ["shop", "orders", "orders"] })),
    ];

    let answers = ask(&mesh, &cases);

    assert_eq!(answers[0]["resources"], json!([name]), "its own: {}", answers[0]);
    for at in [1, 3, 4] {
        assert_eq!(
            (&answers[at]["resources"], &answers[at]["removed"]),
            (&json!([]), &json!([name])),
            "{}",
            answers[at]
        );
    }
    assert_eq!(answers[2]["code"], "PERMISSION_DENIED", "a false claim: {}", answers[2]);
    assert_eq!(answers[5]["code"], "RESOURCE_EXHAUSTED", "a name of 1025 bytes: {}", answers[5]);
    assert_eq!(answers[6]["code"], "RESOURCE_EXHAUSTED", "20,001 names: {}", answers[6]);
    assert!(["OUT_OF_RANGE", "RESOURCE_EXHAUSTED"].contains(&answers[7]["code"].as_str().unwrap_or_default()), "6 MB");
    let metrics = mesh.metrics();
    assert_eq!(metrics.sum("pillion_control_plane_xds_refused_resources_total", &[]), 3.0);
    for (reason, count) in [("false_claim", 1.0), ("too_many_names", 2.0)] {
        assert_eq!(metrics.sum("pillion_control_plane_refused_calls_total", &[("reason", reason)]), count, "{reason}");
    }
    let (log, peak) = mesh.with_control_plane(|process| (process.log(), process.peak_kib()));
    let both_named = |line: &&str| line.contains("sa/payment") && line.contains("shop/orders") && line.contains(&name);
    assert!(log.lines().any(|line| both_named(&line)), "{log}");
    assert!(peak < 256 << 10, "{peak} KiB");
}

#[test]
fn connections_that_say_nothing_end_in_time_and_cost_others_nothing() {
    let mesh = Mesh::start();
    let began = Instant::now();
    let address = mesh.control_plane_address();
    let plain = |bytes: &'static [u8]| {
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("a listener");
            stream.set_read_timeout(Some(Duration::from_secs(25))).expect("a duration above zero");
            stream.write_all(bytes).expect("sent");
            let mut received = Vec::new();
            let end = stream.read_to_end(&mut received);
            assert!(end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
        })
    };
    let mut waiting: Vec<_> = (0..50).map(|_| plain(b"")).collect();
    waiting.push(plain(b"\x16\x03\x01\x02\x00\x01"));
    let to = address.to_string();
    let tls = |bytes: &str| json!({ "to": to, "alpn": ["h2"], "bytes": bytes });
    let within: Vec<_> = ["", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n"]
        .into_iter()
        .map(|bytes| {
            let case = tls(bytes);
            thread::spawn(move || python_json("tls_peer.py", &json!([case])))
        })
        .collect();
    let http1 = python_json("tls_peer.py", &json!([tls("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")]));
    assert_eq!(http1[0]["received"], "", "{http1}");
    // Others are served meanwhile.
    let answer = &ask(&mesh, &[json!({ "csr": csr(&mesh, &P256, &[]), "token": mesh.token("shop", "orders") })])[0];
    assert_eq!(answer["code"], "OK", "{answer}");
    for thread in waiting {
        thread.join().expect("it ended in time");
    }
    for thread in within {
        let outcome = thread.join().expect("it ended in time");
        assert_eq!(outcome[0]["received"], "", "{outcome}");
    }
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let metrics = mesh.metrics();
    let count = |outcome| metrics.sum("pillion_control_plane_connections_total", &[("outcome", outcome)]) as usize;
    assert_eq!((count("handshake_timeout"), count("preface_timeout"), count("not_http2")), (51, 3, 1));
    assert_eq!(metrics.sum("pillion_control_plane_open_connections", &[]), 0.0);
}

#[test]
fn keys_are_readable_by_their_owner_alone_and_no_secret_is_logged_or_shown() {
    let mesh = Mesh::start_with(&["--log", "debug"]);
    let files = python_files(&mesh);
    mesh.service("files", &[("http", 80, "http")]);
    let server = mesh.workload(Workload::new("files").port("http", files.address).setting("log", "debug"));
    let client = mesh.workload(Workload::new("client").setting("log", "debug"));
    let url = format!("http://{}/hello.txt?token=query-secret", client.outbound());
    let arguments =
        [url.as_str(), "-H", "Host: files.shop", "-H", "Authorization: Bearer header-secret", "-b", "c=cookie-secret"];
    assert_eq!(curl(&arguments).status, 200);
    until("it is logged", || !client.access_log().is_empty() && !server.access_log().is_empty());
    ask(&mesh, &[json!({ "csr": csr(&mesh, &P256, &[]), "token": mesh.token("shop", "thief") + "x" })]);

    let mode = |path: &std::path::Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&mesh.state()), 0o700);
    let names: Vec<_> =
        fs::read_dir(mesh.state()).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    for name in ["root.key", "intermediate.key", "join.key"] {
        assert!(names.iter().any(|path| path.ends_with(name)), "{names:?}");
    }
    for path in names.iter().filter(|path| path.extension().is_none_or(|extension| extension != "pem")) {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    let mut secrets = vec!["PRIVATE KEY".to_owned(), "-secret".to_owned(), mesh.token("shop", "thief")];
    let bootstrap = fs::read_dir(mesh.scratch().join("bootstrap")).expect("a folder");
    for path in bootstrap.map(|entry| entry.expect("an entry").path()) {
        if path.to_string_lossy().ends_with("-token") {
            secrets.push(fs::read_to_string(path).expect("a token"));
        }
    }
    assert_eq!(secrets.len(), 5, "two sidecars have a token each");
    // A token's middle part is not secret, but its MAC is.
    let secrets: Vec<&str> = secrets.iter().map(|text| text.rsplit('.').next().unwrap_or_default().trim()).collect();
    let told = [
        ("control plane's log", mesh.with_control_plane(|process| process.log() + &process.stdout())),
        ("control plane's pages", mesh.admin("/debug/nodes") + &mesh.admin("/debug/config") + &mesh.admin("/metrics")),
        ("client's log", client.process.log() + &client.process.stdout()),
        ("server's log", server.process.log() + &server.process.stdout()),
        (
            "client's pages",
            client.admin_page("/config_dump") + &client.admin_page("/clusters") + &client.admin_page("/metrics"),
        ),
    ];
    for (place, text) in &told {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in the {place}");
        }
        assert!(!text.is_empty());
    }
    let debug = |text: &str| text.contains("DEBUG");
    assert!(debug(&told[0].1) && debug(&told[2].1), "the logs are really at debug level");
    let listed = fs::read_to_string(format!("/proc/{}/cmdline", client.process.pid())).expect("running");
    assert!(!listed.contains(secrets[3]), "no secret on a command line");
}
