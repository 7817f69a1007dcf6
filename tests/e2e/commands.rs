//! What a person types: certs, check, run, demo.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Mesh, Process, curl, eventually, output, pillion, python_files, run, tool, until};

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: { name: files, namespace: shop }
spec: { selector: { app: files }, ports: [ { port: 80, targetPort: http, appProtocol: http } ] }
";

#[test]
fn certificates_form_a_chain_that_openssl_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca");
    let certs = |arguments: &[&str]| run(pillion().arg("certs").args(arguments).current_dir(folder.path()));
    certs(&["root", "--out", "ca"]);
    certs(&["intermediate", "--out", "ca"]);
    certs(&["workload", "--ca", "ca", "--namespace", "shop", "--service-account", "web", "--san", "localhost"]);

    let openssl = |arguments: &[&str]| run(Command::new(tool("openssl", "openssl")).args(arguments).current_dir(&ca));
    let verified =
        openssl(&["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "intermediate.pem", "web.shop.pem"]);
    assert_eq!(verified, "web.shop.pem: OK\n");
    let names = openssl(&["x509", "-in", "web.shop.pem", "-noout", "-ext", "subjectAltName"]);
    assert!(names.contains("URI:spiffe://cluster.local/ns/shop/sa/web, DNS:localhost"), "{names}");
    for key in ["root.key", "intermediate.key", "web.shop.key"] {
        assert_eq!(fs::metadata(ca.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
}

#[test]
fn certificates_are_not_overwritten_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let root = |more: &[&str]| output(pillion().args(["certs", "root", "--out"]).arg(folder.path()).args(more));
    assert!(root(&[]).status.success());
    let first = fs::read(folder.path().join("root.pem")).unwrap();
    let again = root(&[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));
    assert_eq!(fs::read(folder.path().join("root.pem")).unwrap(), first);
    assert!(root(&["--force"]).status.success());
    assert_ne!(fs::read(folder.path().join("root.pem")).unwrap(), first);
}

#[test]
fn check_names_file_line_and_field_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let check = |more: &[&str]| output(pillion().arg("check").arg(folder.path()).args(more));
    fs::create_dir(folder.path().join("nested")).unwrap();
    fs::write(folder.path().join("nested/good.yaml"), SERVICE).unwrap();
    assert_eq!(check(&[]).status.code(), Some(0));

    let bad = "apiVersion: v1\nkind: Service\nmetadata:\n  name: Bad_Name\nspec: { ports: [ { port: 80 } ] }\n";
    fs::write(folder.path().join("bad.yaml"), format!("{SERVICE}---\n{bad}")).unwrap();
    let report = check(&[]);
    assert_eq!(report.status.code(), Some(1));
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(text.contains("bad.yaml:9: error:") && text.contains("metadata.name"), "{text}");
    let json: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!((&json["errors"][0]["line"], &json["errors"][0]["field"]), (&9.into(), &"metadata.name".into()));

    let missing = output(pillion().args(["check", "/nonexistent"]));
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn run_serves_follows_its_folder_restarts_and_leaves_nothing_behind() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mesh = Mesh::start();
    let files = python_files(&mesh);
    let workload = |name: &str, rest: &str| {
        let port = mesh.free_address();
        let text = format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
             metadata: {{ name: {name}, namespace: shop, labels: {{ app: {name} }} }}\n\
             spec:\n  address: {}\n  serviceAccount: {name}\n  mesh: {{ port: {} }}\n{rest}",
            port.ip(),
            port.port()
        );
        fs::write(folder.path().join(format!("{name}.yaml")), text).unwrap();
    };
    fs::write(folder.path().join("service.yaml"), SERVICE).unwrap();
    let port = mesh.free_address().port();
    let ports = format!("  ports: [ {{ name: http, port: {port}, application: \"{}\" }} ]\n", files.address);
    workload("files", &ports);
    let outbound = mesh.free_address();
    workload("client", &format!("  sidecar: {{ outbound: \"{outbound}\" }}\n"));
    let any = format!("{}:0", mesh.ip());

    let mut command = pillion();
    command.arg("run").arg(folder.path()).args(["--listen", &any, "--admin", &any]);
    let mut running = Process::spawn("pillion run", command.env("TMPDIR", temporary.path()));
    until("both sidecars are ready", || {
        ["shop/files", "shop/client"].iter().all(|name| is_said(&running, name, "ready"))
    });
    let response = curl(&[&format!("http://{outbound}/hello.txt"), "-H", "Host: files.shop"]);
    assert_eq!((response.status, response.text().as_str()), (200, "hello\n"), "{response:?}");

    workload("late", "");
    until("a workload that was added gets its sidecar", || is_said(&running, "shop/late", "ready"));
    let victim = children(running.pid()).into_iter().find(|pid| command_line(*pid).contains("shop.late.json")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim.cast_signed()), Signal::SIGKILL).unwrap();
    until("a sidecar that was killed is said to be", || is_said(&running, "shop/late", "exited"));
    until("and started again", || running.stdout().matches("shop/late").count() >= 5);
    fs::remove_file(folder.path().join("late.yaml")).unwrap();
    until("a workload that was removed loses its sidecar", || is_said(&running, "shop/late", "stopped"));

    let family = children(running.pid());
    assert_eq!(family.len(), 3, "a control plane and two sidecars");
    assert_eq!(running.terminate().code(), Some(0));
    assert!(family.iter().all(|pid| !is_alive(*pid)), "children are gone");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left in the temporary folder");
}

#[test]
fn children_die_with_a_parent_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = Mesh::start();
    let address = mesh.free_address();
    let text = format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: a }}\n\
         spec: {{ address: {}, mesh: {{ port: {} }} }}\n",
        address.ip(),
        address.port()
    );
    fs::write(folder.path().join("a.yaml"), text).unwrap();
    let any = format!("{}:0", mesh.ip());
    let mut command = pillion();
    command.arg("run").arg(folder.path()).args(["--listen", &any, "--admin", &any]);
    let mut running = Process::spawn("pillion run", command.env("TMPDIR", folder.path()));
    until("the sidecar is ready", || is_said(&running, "default/a", "ready"));
    let family = children(running.pid());
    assert_eq!(family.len(), 2);
    running.kill();
    until("children are gone", || family.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = pillion();
    command.args(["demo", "--duration", "8s", "--rate", "50", "--json"]);
    let mut demo = Process::spawn("pillion demo", command.env("TMPDIR", temporary.path()));
    let family = eventually("the demo's children run", Duration::from_secs(60), || {
        Some(children(demo.pid())).filter(|family| family.len() == 16)
    });
    assert_eq!(demo.wait().code(), Some(0));

    let summary: Value = serde_json::from_str(&demo.stdout()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let expected = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(keys(&summary), expected(&["requests", "failed", "edges", "split_before", "split_after"]));
    assert!(summary["requests"].as_u64().unwrap() >= 300, "{summary}");
    for edge in summary["edges"].as_array().unwrap() {
        assert_eq!(keys(edge), expected(&["from", "to", "requests", "failed", "p50_ms", "p99_ms", "peer", "mtls"]));
        assert_eq!(edge["mtls"], true, "{edge}");
        assert_eq!(edge["peer"], format!("spiffe://cluster.local/ns/shop/sa/{}", edge["to"].as_str().unwrap()));
    }
    assert!(family.iter().all(|pid| !is_alive(*pid)), "children are gone");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left in the temporary folder");
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Process::spawn("pillion demo", pillion().arg("demo").env("TMPDIR", temporary.path()));
    eventually("the load runs", Duration::from_secs(60), || demo.stdout().contains("requests a second").then_some(()));
    let family = children(demo.pid());
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.wait().code(), Some(130));
    assert!(family.iter().all(|pid| !is_alive(*pid)), "children are gone");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left in the temporary folder");
}

/// Whether `pillion run` showed this state of this process.
fn is_said(running: &Process, name: &str, state: &str) -> bool {
    let said = running.stdout();
    said.lines()
        .filter_map(|line| line.split_once(' '))
        .any(|(who, rest)| who == name && rest.trim_start().starts_with(state))
}

fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The fourth field of `/proc/PID/stat`, after a name in parentheses.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn command_line(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
