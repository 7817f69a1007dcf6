//! Interception: unmodified programs in network namespaces, whose traffic their sidecars take over.

mod destinations;
mod detection;
mod loops;
mod names;
mod sni;
mod source;

use std::net::IpAddr;
use std::rc::Rc;

use serde_json::Value;

use crate::support::{Mesh, Network, Pod, Process, Stack, Workload, in_workspace, python, run};

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

    /// A Service with a virtual address, which selects `app: NAME`; ports are number, target number, appProtocol or "".
    fn service(&self, name: &str, address: &str, ports: &[(u16, u16, &str)]) {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\n\
             spec:\n  clusterIP: \"{address}\"\n  selector: {{ app: {name} }}\n  ports:\n"
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
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/say.py")).arg(host.to_string()).arg(port.to_string()).args(text);
    let output = run(&mut pod.host.wrap_as(1000, &[], &command));
    serde_json::from_str(&output).expect("JSON")
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
