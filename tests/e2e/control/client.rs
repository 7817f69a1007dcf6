//! A bare client of the protocol, in Python, that sends what it is told and remembers what came.

use serde_json::{Value, json};

use super::{SOON, certificates};
use crate::support::{App, Mesh, curl, eventually, python_app};

/// The client.
pub(super) struct Probe {
    app: App,
}

impl Probe {
    /// Opens a stream of `variant` (`delta` or `sotw`) as `probe` of namespace `shop`.
    pub(super) fn open(mesh: &Mesh, variant: &str) -> Self {
        Self::open_as(mesh, variant, &json!({ "id": "shop/probe" }))
    }

    /// The same as this node.
    pub(super) fn open_as(mesh: &Mesh, variant: &str, node: &Value) -> Self {
        let folder = certificates(mesh, "probe");
        let server = mesh.control_plane_address().to_string();
        let node = node.to_string();
        Self { app: python_app(mesh, "xds_probe.py", &[&server, folder.to_str().unwrap(), &node, variant]) }
    }

    /// Sends a request: the fields of the message beside its type.
    pub(super) fn send(&self, kind: &str, mut request: Value) {
        request["typeUrl"] = type_url(kind).into();
        self.post("/send", &request.to_string());
    }

    /// The same, and closes the client's half of the stream.
    pub(super) fn send_last(&self, kind: &str, mut request: Value) {
        request["typeUrl"] = type_url(kind).into();
        self.post("/last", &request.to_string());
    }

    /// The next response is refused with this text.
    pub(super) fn refuse(&self, reason: &str) {
        self.post("/refuse", reason);
    }

    /// Writes the first listener that came as a file that Envoy can serve by itself, in plaintext at this port.
    pub(super) fn write_listener(&self, port: u16, file: &std::path::Path) {
        self.post("/alone", &format!("{port} {}", file.display()));
    }

    /// A new stream on a new connection.
    pub(super) fn restart(&self) {
        self.post("/restart", "");
    }

    /// Everything that came, as soon as there are `count` responses.
    pub(super) fn responses(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} responses"), SOON, || {
            let page = curl(&[&format!("http://{}/", self.app.address)]).text();
            let page: Value = serde_json::from_str(&page).expect("JSON");
            assert_eq!(page["status"], Value::Null, "the stream has ended");
            page["responses"].as_array().filter(|responses| responses.len() >= count).cloned()
        })
    }

    fn post(&self, path: &str, body: &str) {
        let url = format!("http://{}{path}", self.app.address);
        assert_eq!(curl(&[&url, "--data-binary", body]).status, 200);
    }
}

fn type_url(kind: &str) -> String {
    let package = match kind {
        "ClusterLoadAssignment" => "endpoint",
        "RouteConfiguration" => "route",
        "Cluster" => "cluster",
        _ => "listener",
    };
    format!("type.googleapis.com/envoy.config.{package}.v3.{kind}")
}
