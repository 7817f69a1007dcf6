//! What an operator sees of the mesh.

mod access_log;
mod admin;
mod collector;
mod csds;
mod dashboard;
mod explain;
mod load;
mod metrics;
mod metrics_files;
mod ps;
mod tap;
mod trace;

use serde_json::Value;

use crate::support::{App, Mesh, Process, Sidecar, Workload, nginx, pillion, until};

/// `client` calls `orders`, whose application answers 200, below `/fail` 503.
struct Pair {
    mesh: Mesh,
    client: Sidecar,
    orders: Sidecar,
    _app: App,
}

impl Pair {
    fn start() -> Self {
        let mesh = Mesh::start();
        let app = nginx(&mesh, "location / { return 200 ok; }\nlocation /fail { return 503 no; }");
        mesh.service("orders", &[("http", 80, "http")]);
        let orders = mesh.workload(Workload::new("orders-1").port("http", app.address));
        let client = mesh.workload(Workload::new("client"));
        Self { mesh, client, orders, _app: app }
    }

    /// Sends a request through both sidecars, with more arguments of curl.
    fn get(&self, path: &str, more: &[&str]) -> u16 {
        let url = format!("http://{}{path}", self.client.outbound());
        let mut arguments = vec![url.as_str(), "-H", "Host: orders.shop"];
        arguments.extend(more);
        crate::support::curl(&arguments).status
    }

    /// Both sidecars can be asked.
    fn wait_until_observed(&self) {
        until("both sidecars answer the control plane", || {
            let all: Value = serde_json::from_str(&self.mesh.admin("/api/v1/sidecars")).unwrap_or_default();
            let all = all["sidecars"].as_array().cloned().unwrap_or_default();
            all.len() == 2 && all.iter().all(|one| one["state"].is_object())
        });
    }

    /// Taps that the two sidecars serve.
    fn taps(&self) -> u64 {
        let of = |sidecar: &Sidecar| json(&sidecar.admin_page("/memory"))["counts"]["taps"].as_u64().unwrap();
        of(&self.client) + of(&self.orders)
    }

    /// Starts `pillion tap`, and waits until both sidecars serve it.
    fn tap(&self, arguments: &[&str]) -> Process {
        let before = self.taps();
        let mut command = pillion();
        command.args(["tap", "--control-plane-admin", &self.mesh.admin_address().to_string()]).args(arguments);
        let process = Process::spawn("tap", &mut command);
        until("both sidecars are tapped", || self.taps() == before + 2);
        process
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The JSON lines that a process printed.
fn lines(process: &Process) -> Vec<Value> {
    let text = process.stdout();
    // The last line may be half written.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
