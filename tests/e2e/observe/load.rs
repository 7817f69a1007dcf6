//! Load reports: what the graph says is what clients did, whoever reports it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::control::envoy::Envoy;
use crate::control::grpc;
use crate::support::{Mesh, Sidecar, Workload, curl, eventually, nginx, pillion, python_app, run, tcp_server};

const SOON: Duration = Duration::from_secs(30);

/// A mesh whose clients report often.
pub(super) fn mesh(arguments: &[&str]) -> Mesh {
    Mesh::start_with(&[&["--load-interval", "300ms"], arguments].concat())
}

/// The edge between two nodes of the graph of the last two minutes.
fn edge(mesh: &Mesh, from: &str, to: &str) -> Option<Value> {
    let graph: Value = serde_json::from_str(&mesh.admin("/api/v1/graph?window=120")).unwrap();
    graph["edges"].as_array().unwrap().iter().find(|edge| edge["from"] == from && edge["to"] == to).cloned()
}

/// Waits until the edge is as wanted.
fn edge_with(mesh: &Mesh, from: &str, to: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    eventually(&format!("{from} to {to}: {what}"), SOON, || {
        last = edge(mesh, from, to);
        last.clone().filter(&wanted)
    })
}

/// Requests by curl, all of one run.
fn requests(client: &Sidecar, host: &str, path: &str, count: u32) {
    curl(&[&format!("http://{}{path}?[1-{count}]", client.outbound()), "-H", &format!("Host: {host}")]);
}

/// A service `orders` of which `/fail` fails, and somebody who calls it.
pub(super) fn shop(mesh: &Mesh) -> (Sidecar, Sidecar, crate::support::App) {
    let server = "    location / { return 200 \"fine\\n\"; }\n    location /fail { return 500 \"no\\n\"; }\n";
    let app = nginx(mesh, server);
    mesh.service("orders", &[("http", 80, "http")]);
    let orders = mesh.workload(Workload::new("orders-1").port("http", app.address));
    let client = mesh.workload(Workload::new("client"));
    (orders, client, app)
}

const CLIENT: &str = "workload/shop/client";
const ORDERS: &str = "service/shop/orders";

#[test]
fn the_graph_says_what_the_client_did() {
    let mesh = mesh(&[]);
    let (orders, client, _app) = shop(&mesh);
    requests(&client, "orders.shop", "/", 45);
    requests(&client, "orders.shop", "/fail", 15);
    let told = edge_with(&mesh, CLIENT, ORDERS, "60 requests", |edge| edge["requests"] == 60);
    assert_eq!((&told["success_rate"], &told["mutual_tls"]), (&0.75.into(), &"all".into()), "{told}");
    assert!(told["p50_ms"].as_f64() <= told["p99_ms"].as_f64() && told["p50_ms"].is_f64(), "{told}");
    assert!(told["requests_per_second"].as_f64() > Some(0.0), "{told}");

    curl(&[&format!("http://{}/", orders.front("http"))]);
    let outside = "client//outside the mesh";
    let told = edge_with(&mesh, outside, ORDERS, "a refused caller", |edge| edge["requests"] == 1);
    assert_eq!((&told["reporter"], &told["dropped"]), (&"server".into(), &1.into()), "{told}");

    requests(&client, "nowhere.shop", "/", 3);
    edge_with(&mesh, CLIENT, "external//unknown", "what nobody knows", |edge| edge["dropped"] == 3);

    let mut top = pillion();
    top.args(["top", "--once", "--window", "2m", "--namespace", "shop", "--control-plane-admin"]);
    let table = run(top.arg(mesh.admin_address().to_string()));
    let line = table.lines().find(|line| line.contains("shop/client  ") && line.contains("shop/orders"));
    assert!(line.is_some_and(|line| line.contains("75.0 %") && line.contains("all")), "{table}");

    mesh.kill_control_plane();
    requests(&client, "orders.shop", "/", 7);
    mesh.start_control_plane();
    let told = edge_with(&mesh, CLIENT, ORDERS, "what happened meanwhile", |edge| edge["requests"] == 7);
    assert_eq!(told["success_rate"], 1.0);
}

#[test]
fn bytes_of_tcp_are_told_while_the_connection_lasts() {
    let mesh = mesh(&[]);
    let address = tcp_server(&mesh, |mut stream| {
        let mut buffer = [0; 1000];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..count]);
        }
    });
    mesh.service("echo", &[("tcp", 7, "tcp")]);
    let _echo = mesh.workload(Workload::new("echo-1").port("tcp", address));
    let client = mesh.workload(Workload::new("client").tcp("echo.shop:7"));
    let mut stream = TcpStream::connect(client.tcp("echo.shop:7")).unwrap();
    let mut back = [0; 1000];
    stream.write_all(&[b'x'; 1000]).unwrap();
    stream.read_exact(&mut back).unwrap();
    let told = edge_with(&mesh, CLIENT, "service/shop/echo", "bytes", |edge| {
        edge["tcp_bytes_per_second"].as_f64() > Some(0.0)
    });
    assert_eq!((&told["tcp_connections"], &told["requests"]), (&1.into(), &0.into()), "{told}");
    drop(stream);
    edge_with(&mesh, CLIENT, "service/shop/echo", "mutual TLS", |edge| edge["mutual_tls"] == "all");
}

#[test]
fn grpcs_own_client_reports_as_well() {
    let mesh = mesh(&[]);
    let greeter = python_app(&mesh, "greeter.py", &["hello"]);
    mesh.service("greeter", &[("grpc", 80, "grpc")]);
    let _server = mesh.workload(Workload::new("greeter-1").port("grpc", greeter.address));
    let client = grpc::client(&mesh, "greeter.shop:80");
    eventually("calls are answered", SOON, || {
        (grpc::call(&client, 20)["errors"] == serde_json::json!({})).then_some(())
    });
    let told = edge_with(&mesh, "client/shop/shop/caller", "service/shop/greeter", "calls", |edge| {
        edge["requests"].as_u64() >= Some(20)
    });
    assert_eq!((&told["success_rate"], &told["reporter"]), (&1.0.into(), &"client".into()), "{told}");
}

#[test]
fn envoy_reports_as_well() {
    let mesh = mesh(&[]);
    let (_orders, _client, _app) = shop(&mesh);
    let envoy = Envoy::start(&mesh, "DELTA_GRPC");
    let get = |path: &str| curl(&[&format!("http://{}{path}", envoy.outbound), "-H", "Host: orders.shop"]).status;
    eventually("Envoy reaches the service", SOON, || (get("/") == 200).then_some(()));
    // It counts for reports from the first report on that it knows the cluster.
    let mut told = Value::Null;
    eventually("half of its requests fail", SOON, || {
        assert_eq!((get("/"), get("/fail")), (200, 500));
        told = edge(&mesh, "client/shop/shop/envoy", ORDERS)?;
        (told["requests"].as_u64() >= Some(20) && told["success_rate"].as_f64() < Some(0.7)).then_some(())
    });
    assert!(told["success_rate"].as_f64() > Some(0.3), "{told}");
    assert_eq!((&told["reporter"], &told["mutual_tls"]), (&"client".into(), &Value::Null), "{told}");
}
