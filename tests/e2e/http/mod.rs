//! HTTP semantics through a pair of sidecars, and through one.

mod failures;
mod fields;
mod filters;
mod messages;
mod names;
mod pools;
mod races;
mod routing;
mod upgrades;
mod versions;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::support::{App, Curl, Mesh, Sidecar, Workload, curl, exchange, python_app};

/// An application `echo.shop:80` behind a sidecar, and a sidecar to call it through.
struct Pair {
    mesh: Mesh,
    app: App,
    server: Sidecar,
    client: Sidecar,
}

impl Pair {
    /// The service's `appProtocol` is `protocol`; "" leaves it open.
    fn new(protocol: &str, app: impl FnOnce(&Mesh) -> App) -> Self {
        Self::with(protocol, "", app)
    }

    /// The same with more fields of the workload's port.
    fn with(protocol: &str, port: &str, app: impl FnOnce(&Mesh) -> App) -> Self {
        let mesh = Mesh::start();
        let app = app(&mesh);
        mesh.service("echo", &[("web", 80, protocol)]);
        let server = mesh.workload(Workload::new("echo").port_with("web", app.address, port));
        let client = mesh.workload(Workload::new("client"));
        Self { mesh, app, server, client }
    }

    /// Asks for `http://echo.shop/PATH` through the client's sidecar.
    fn get(&self, path: &str, arguments: &[&str]) -> Curl {
        through(self.client.outbound(), &format!("http://echo.shop{path}"), arguments)
    }

    /// Sends bytes to the client's sidecar and returns all that comes until it closes.
    fn raw(&self, request: &str) -> String {
        raw(self.client.outbound(), request)
    }
}

/// The application that echoes requests over HTTP/1.1.
fn http1(mesh: &Mesh) -> App {
    python_app(mesh, "http1.py", &[])
}

/// The application that echoes requests over HTTP/2.
fn http2(mesh: &Mesh) -> App {
    python_app(mesh, "http2.py", &[])
}

/// Applications in one process, by name.
fn named(app: &mut App, name: &str) -> SocketAddr {
    app.process.ready()["names"][name].as_str().and_then(|text| text.parse().ok()).expect("an application of that name")
}

/// curl for a URL whose host is reached through the sidecar's port at `port`.
fn through(port: SocketAddr, url: &str, arguments: &[&str]) -> Curl {
    let connect_to = format!("::{port}");
    curl(&[&["--connect-to", &connect_to, url], arguments].concat())
}

/// Bytes as given; all that comes until the peer closes.
fn raw(to: SocketAddr, request: &str) -> String {
    String::from_utf8_lossy(&exchange(to, request.as_bytes(), false, Duration::from_secs(20))).into_owned()
}

/// What the echoing application got.
fn echoed(response: &Curl) -> Value {
    assert_eq!((response.exit, response.status), (0, 200), "{response:?}");
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// The values of a field that the application got.
fn field<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = echo["fields"].as_array().expect("a list of fields");
    fields.iter().filter(|field| field[0] == name).map(|field| field[1].as_str().expect("text")).collect()
}
