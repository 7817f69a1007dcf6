//! Interception: unmodified programs in network namespaces, whose traffic their sidecars take over.

mod attack;
mod capture;
mod databases;
mod destinations;
mod detection;
mod families;
mod grpc;
mod http;
mod loops;
mod mail;
mod many;
mod names;
mod sni;
mod source;
mod stopping;
mod tls;

use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::rc::Rc;

use serde_json::Value;

use crate::support::{
    APPLICATION, Host, Mesh, Network, Pod, Process, Stack, Workload, in_workspace, nginx_command, python, run, tool,
    until,
};

/// A network with a control plane on a host of its own.
struct World {
    mesh: Mesh,
    network: Network,
}

impl World {
    fn start(stack: Stack) -> Self {
        let network = Network::start(stack);
        let mesh = Mesh::start_on(Rc::new(network.host("control")), &[]);
        Self { mesh, network }
    }

    /// A pod whose traffic its sidecar takes over.
    fn pod(&self, workload: Workload) -> Pod {
        Pod::start(&self.mesh, &self.network, workload.setting("intercept", "redirect"))
    }

    /// A Service with a virtual address (or two, `10.96.0.10, fd96::10`), which selects `app: NAME`; ports are number,
    /// target number, appProtocol or "".
    fn service(&self, name: &str, address: &str, ports: &[(u16, u16, &str)]) {
        let addresses: Vec<&str> = address.split(", ").collect();
        let first = addresses.first().expect("an address");
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\n\
             spec:\n  clusterIP: \"{first}\"\n  clusterIPs: {addresses:?}\n  selector: {{ app: {name} }}\n  ports:\n"
        );
        for (port, target, protocol) in ports {
            let protocol = if protocol.is_empty() { String::new() } else { format!(", appProtocol: {protocol}") };
            text.push_str(&format!("  - {{ name: p{port}, port: {port}, targetPort: {target}{protocol} }}\n"));
        }
        self.mesh.write(&format!("service-{name}.yaml"), &text);
    }
}

/// A workload with these ports; where the application listens is the test's affair.
fn workload(name: &str, ports: &[(u16, &str)]) -> Workload {
    ports.iter().fold(Workload::new(name), |workload, (port, extra)| {
        let application = format!("127.0.0.1:{port}").parse().expect("literal");
        workload.port_with(&format!("p{port}"), application, extra)
    })
}

/// Starts `lines.py` in a pod, at an address like `0.0.0.0:7000`.
fn lines(pod: &Pod, address: &str, greeting: &str) -> Process {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/lines.py")).arg(address).arg(greeting);
    let mut process = pod.spawn("lines.py", &command);
    process.ready();
    process
}

/// Runs `say.py` in a pod.
fn say(pod: &Pod, host: impl ToString, port: u16, text: &[&str]) -> Value {
    say_from(&pod.host, host, port, text)
}

/// The same outside the mesh.
fn say_from(from: &Host, host: impl ToString, port: u16, text: &[&str]) -> Value {
    let (host, port) = (host.to_string(), port.to_string());
    json(from, "say.py", &[&[host.as_str(), &port], text].concat())
}

/// Starts `tests/e2e/apps/NAME` in a pod; it prints a line of JSON when it listens.
fn app(pod: &Pod, name: &str, arguments: &[&str]) -> Process {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps").join(name)).args(arguments);
    let mut process = pod.spawn(name, &command);
    process.ready();
    process
}

/// Runs `tests/e2e/apps/NAME` to its end, as an application; it prints JSON.
fn json(from: &Host, name: &str, arguments: &[&str]) -> Value {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps").join(name)).args(arguments);
    let output = run(&mut from.wrap_as(APPLICATION, &[], &command));
    serde_json::from_str(&output).expect("JSON")
}

/// Starts nginx in a pod, at an address like `127.0.0.1:8080`, with the body of a `server` block.
fn nginx_in(pod: &Pod, mesh: &Mesh, listen: &str, server: &str) -> Process {
    let folder = mesh.scratch().join(format!("nginx-{}", listen.replace([':', ' ', '[', ']'], "-")));
    let command = nginx_command(&folder, listen, server);
    chown(&folder, Some(APPLICATION), Some(APPLICATION)).expect("root may");
    let process = pod.spawn("nginx", &command);
    let port = listen.split(' ').next().and_then(|address| address.rsplit(':').next()).expect("an address");
    listens(pod, port);
    process
}

/// Waits until somebody listens on a port of a pod.
fn listens(pod: &Pod, port: &str) {
    let filter = format!("sport = :{port}");
    until("it listens", || {
        let mut command = pod.host.command(tool("ss", "iproute2"));
        !run(command.args(["--no-header", "--listening", "--tcp", "--numeric", &filter])).is_empty()
    });
}

/// How many connections of the pod's applications were found to be this: `http1`, `opaque`, `server_first`.
fn detections(pod: &Pod, result: &str) -> f64 {
    let labels = [("direction", "outbound"), ("result", result)];
    pod.sidecar.metric("pillion_detection_duration_seconds_count", &labels)
}

/// Starts Python's file server in a pod; it has one file, `hello.txt`.
fn files(pod: &Pod, mesh: &Mesh, bind: IpAddr, port: u16) -> Process {
    let folder = mesh.scratch().join("files");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("hello.txt"), "hello\n").expect("a file");
    let mut command = python();
    command.args(["-m", "http.server", &port.to_string(), "--protocol", "HTTP/1.1", "--bind", &bind.to_string()]);
    command.arg("--directory").arg(folder);
    let mut process = pod.spawn("http.server", &command);
    process.first_line("its port", |line| line.contains("Serving HTTP").then_some(()));
    process
}
