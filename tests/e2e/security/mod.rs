//! Hostile peers, hostile bytes: each is refused, counted and explained, and costs nobody else anything.

mod control;
mod http1;
mod http2;
mod identity;
mod limits;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Mesh, Sidecar, pillion, run, tool, until};

/// A certificate chain and its key, as files.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Credentials {
    /// These fields added to an object that a script of `tests/e2e/apps` reads.
    fn with(&self, mut case: Value) -> Value {
        case["cert"] = json!(self.certificate);
        case["key"] = json!(self.key);
        case
    }
}

/// A certificate of `pillion certs workload` for a service account of namespace `shop`.
pub(crate) fn certificate(mesh: &Mesh, ca: &Path, account: &str, more: &[&str]) -> Credentials {
    let folder = tempfile::tempdir_in(mesh.scratch()).expect("a folder").keep();
    let mut command = pillion();
    command.args(["certs", "workload", "--namespace", "shop", "--service-account", account, "--name", "peer"]);
    run(command.arg("--ca").arg(ca).arg("--out").arg(&folder).args(more));
    Credentials { certificate: folder.join("peer.pem"), key: folder.join("peer.key") }
}

/// A CA of somebody else: root and intermediate with the same names as ours.
fn another_ca(mesh: &Mesh) -> PathBuf {
    let folder = tempfile::tempdir_in(mesh.scratch()).expect("a folder").keep();
    for kind in ["root", "intermediate"] {
        run(pillion().args(["certs", kind, "--out"]).arg(&folder));
    }
    folder
}

/// A certificate that no mesh would make: signed by our intermediate, but with these alternative names
/// (`URI:spiffe://…,URI:…`).
fn odd_certificate(mesh: &Mesh, names: &str) -> Credentials {
    let folder = tempfile::tempdir_in(mesh.scratch()).expect("a folder").keep();
    let file = |name: &str| folder.join(name);
    let extensions = format!(
        "subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n\
         basicConstraints=CA:FALSE\n"
    );
    fs::write(file("extensions"), extensions).expect("a file");
    let mut request = openssl();
    request.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=odd"]);
    run(request.arg("-keyout").arg(file("key")).arg("-out").arg(file("request")));
    let mut sign = openssl();
    sign.args(["x509", "-req", "-days", "1", "-in"]).arg(file("request"));
    sign.arg("-CA").arg(mesh.state().join("intermediate.pem"));
    sign.arg("-CAkey").arg(mesh.state().join("intermediate.key"));
    let leaf = run(sign.arg("-extfile").arg(file("extensions")));
    let intermediate = fs::read_to_string(mesh.state().join("intermediate.pem")).expect("an intermediate");
    fs::write(file("chain"), leaf + &intermediate).expect("a file");
    Credentials { certificate: file("chain"), key: file("key") }
}

fn openssl() -> Command {
    Command::new(tool("openssl", "openssl"))
}

/// The documents of a service `name` with one workload whose mesh port is somebody of ours, not a sidecar.
fn impostor(mesh: &Mesh, name: &str, account: &str, port: u16, mesh_port: u16) {
    let ip = mesh.ip();
    mesh.service(name, &[("http", 80, "http")]);
    mesh.write(
        &format!("workload-{name}.yaml"),
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
             metadata: {{ name: {name}, namespace: shop, labels: {{ app: {name} }} }}\n\
             spec:\n  address: {ip}\n  serviceAccount: {account}\n  mesh: {{ port: {mesh_port} }}\n  ports:\n  \
             - {{ name: http, port: {port}, application: \"{ip}:9\" }}\n"
        ),
    );
}

/// Waits until the sidecar has refused this many connections for this reason, and explained each in its log.
fn refused(sidecar: &Sidecar, reason: &str, count: usize) {
    until(&format!("{count} connections refused: {reason}"), || {
        let counted = sidecar.metric("pillion_connections_refused_total", &[("reason", reason)]);
        let explained = sidecar.process.events("refused");
        let explained = explained.iter().filter(|line| line["reason"] == reason && line["detail"] != "");
        counted as usize == count && explained.count() == count
    });
}

/// The status line's number of each HTTP/1.1 response in what came back.
fn statuses(received: &str) -> Vec<u16> {
    let heads = received.match_indices("HTTP/1.").filter(|(at, _)| *at == 0 || !received[..*at].ends_with(' '));
    heads.filter_map(|(at, _)| received[at..].split_whitespace().nth(1)?.parse().ok()).collect()
}
