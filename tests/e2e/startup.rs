//! Starting: what is needed, what is said while it is missing, and which of several settings wins.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Curl, Mesh, Process, Workload, curl, output, pillion, run, until};

/// A sidecar's settings, all ports being the kernel's choice but the health port.
fn settings(mesh: &Mesh, health: SocketAddr) -> Value {
    let any = SocketAddr::new(mesh.ip(), 0).to_string();
    let mut settings = mesh.membership("shop", "app");
    let more = json!({
        "workload": "app", "namespace": "shop", "service_account": "app", "workers": 1,
        "outbound_http": any, "admin": any, "metrics": any, "health": health.to_string(),
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

fn proxy(mesh: &Mesh, settings: &Value) -> Command {
    let mut command = pillion();
    command.arg("proxy").arg("--bootstrap").arg(mesh.secret_file("bootstrap.json", &settings.to_string()));
    command
}

fn readiness(health: SocketAddr) -> Curl {
    curl(&[&format!("http://{health}/ready")])
}

fn document(mesh_port: SocketAddr) -> String {
    format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
         metadata: {{ name: app, namespace: shop, labels: {{ app: app }} }}\n\
         spec: {{ address: {}, serviceAccount: app, mesh: {{ port: {} }} }}\n",
        mesh_port.ip(),
        mesh_port.port()
    )
}

/// What it says on standard error when it does not start: its exit code must be `code`.
fn refusal(command: &mut Command, code: i32) -> String {
    let output = output(command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "nobody is told that it is ready");
    said
}

#[test]
fn a_sidecar_is_ready_only_with_a_certificate_and_its_configuration_and_says_what_is_missing() {
    let mesh = Mesh::start();
    let (health, port) = (mesh.free_address(), mesh.free_address());
    let mut settings = settings(&mesh, health);
    settings["mesh"] = port.to_string().into();
    mesh.kill_control_plane();
    let mut sidecar = Process::spawn("sidecar", &mut proxy(&mesh, &settings));
    until("it says that it has no certificate", || {
        let answer = readiness(health);
        answer.status == 503 && answer.text().contains("waiting for the first certificate")
    });
    mesh.start_control_plane();
    until("it says that it has no configuration: there is no such workload", || {
        let answer = readiness(health);
        answer.status == 503 && answer.text().contains("waiting for the first configuration")
    });
    assert_eq!(sidecar.stdout(), "", "no ready line yet");
    mesh.write("workload.yaml", &document(port));
    let line = sidecar.ready();
    assert_eq!((&line["event"], &line["health"]), (&"ready".into(), &health.to_string().into()));
    assert_eq!(readiness(health).status, 200);
    assert_eq!(sidecar.stdout().lines().count(), 1, "one line, nothing else");
}

#[test]
fn a_ready_sidecar_stays_ready_without_its_control_plane() {
    let mesh = Mesh::start();
    let sidecar = mesh.workload(Workload::new("app"));
    mesh.kill_control_plane();
    until("it has noticed", || sidecar.metric("pillion_xds_connected", &[]) == 0.0);
    assert_eq!(readiness(sidecar.health()).status, 200);
}

#[test]
fn a_port_that_is_taken_ends_the_start_and_names_the_setting() {
    let mesh = Mesh::start();
    let taken = TcpListener::bind((mesh.ip(), 0)).unwrap();
    let address = taken.local_addr().unwrap();
    for (key, value) in [
        ("outbound_http", json!(address.to_string())),
        ("mesh", json!(address.to_string())),
        ("admin", json!(address.to_string())),
        ("health", json!(address.to_string())),
        ("tcp", json!([format!("{address}=ledger.shop:7000")])),
    ] {
        for workers in [1, 2] {
            let mut settings = settings(&mesh, SocketAddr::new(mesh.ip(), 0));
            settings[key] = value.clone();
            settings["workers"] = workers.into();
            let said = refusal(&mut proxy(&mesh, &settings), 1);
            let wanted = format!("cannot listen on {address} (--{})", key.replace('_', "-"));
            assert!(said.contains(&wanted), "{said}");
        }
    }
    let free = SocketAddr::new(mesh.ip(), 0);
    for (listen, admin) in [(address, free), (free, address)] {
        let mut command = pillion();
        command.arg("control-plane").arg("--config").arg(mesh.config()).arg("--state").arg(mesh.state());
        command.arg("--listen").arg(listen.to_string()).arg("--admin").arg(admin.to_string());
        let said = refusal(&mut command, 1);
        assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    }
}

#[test]
fn a_front_port_that_is_taken_is_named_by_readiness_and_opened_once_it_is_free() {
    let mesh = Mesh::start();
    let (health, port) = (mesh.free_address(), mesh.free_address());
    let taken = TcpListener::bind((mesh.ip(), 0)).unwrap();
    let front = taken.local_addr().unwrap();
    let mut settings = settings(&mesh, health);
    settings["mesh"] = port.to_string().into();
    let ports =
        format!("address: {}, ports: [ {{ port: {}, application: \"127.0.0.1:1\" }} ]", port.ip(), front.port());
    let text = document(port).replace(&format!("address: {}", port.ip()), &ports);
    mesh.write("workload.yaml", &text);
    let mut sidecar = Process::spawn("sidecar", &mut proxy(&mesh, &settings));
    until("it says which", || {
        let answer = readiness(health);
        answer.status == 503 && answer.text().contains(&format!("cannot listen on {front}"))
    });
    drop(taken);
    assert_eq!(sidecar.ready()["front"][front.port().to_string()], front.to_string());
}

/// `--help` by setting: `--flag` and all that is said of it.
fn help(program: &str) -> Vec<(String, String)> {
    let text = run(pillion().args([program, "--help"]));
    let options = text.split_once("Options:").expect("options").1.to_owned();
    let mut settings: Vec<(String, String)> = Vec::new();
    for line in options.lines() {
        let flag = line.split_whitespace().map(|word| word.trim_end_matches(',')).find(|word| word.starts_with("--"));
        match flag.filter(|_| line.trim_start().starts_with('-')) {
            Some(flag) => settings.push((flag.to_owned(), line.to_owned())),
            None => settings.last_mut().into_iter().for_each(|(_, text)| text.push_str(line)),
        }
    }
    settings.retain(|(flag, _)| flag != "--help" && flag != "--version");
    settings
}

#[test]
fn help_names_every_setting_with_its_default() {
    let proxy = help("proxy");
    for (flag, text) in &proxy {
        assert!(text.contains("[default: ") || text.contains("[required]"), "{flag}: {text}");
    }
    let has = |flag: &str, default: &str| {
        let found = proxy.iter().find(|(name, _)| name == flag).unwrap_or_else(|| panic!("{flag} is not in {proxy:?}"));
        assert!(found.1.contains(default), "{found:?}");
    };
    for (flag, default) in [
        ("--bootstrap", "none"),
        ("--workload", "[required]"),
        ("--namespace", "default"),
        ("--service-account", "default"),
        ("--trust-domain", "cluster.local"),
        ("--control-plane", "[required]"),
        ("--control-plane-root", "[required]"),
        ("--join-token-file", "[required]"),
        ("--mesh", "off"),
        ("--outbound-http", "127.0.0.1:15001"),
        ("--tcp", "none"),
        ("--admin", "127.0.0.1:15000"),
        ("--health", "0.0.0.0:15021"),
        ("--workers", "the CPU limit"),
        ("--certificate-lifetime", "24h"),
        ("--drain-deadline", "30s"),
        ("--access-log", "errors"),
        ("--log", "info"),
    ] {
        has(flag, default);
    }
    let control_plane = help("control-plane");
    for (flag, default) in [
        ("--config", "[env: PILLION_CONTROL_PLANE_CONFIG="),
        ("--state", "[env: PILLION_CONTROL_PLANE_STATE="),
        ("--listen", "[default: 127.0.0.1:15010]"),
        ("--admin", "[default: 127.0.0.1:15014]"),
        ("--trust-domain", "[default: cluster.local]"),
        ("--max-certificate-lifetime", "[default: 24h]"),
        ("--log", "[default: info]"),
    ] {
        let text = &control_plane.iter().find(|(name, _)| name == flag).unwrap_or_else(|| panic!("no {flag}")).1;
        assert!(text.contains(default), "{flag}: {text}");
    }
}

#[test]
fn a_bootstrap_file_that_is_wrong_is_refused_with_what_and_where() {
    let mesh = Mesh::start();
    let good = settings(&mesh, SocketAddr::new(mesh.ip(), 0));
    let with = |key: &str, value: Value| {
        let mut settings = good.clone();
        settings[key] = value;
        settings.to_string()
    };
    for (text, wanted) in [
        (with("outbond_http", json!("off")), "unknown field `outbond_http`"),
        (with("idle_timeout", json!("soon")), "\"soon\" is no duration"),
        (with("workers", json!(0)), "--workers: must not be 0"),
        (with("admin", json!("localhost")), "invalid socket address"),
        (with("access_log", json!("some")), "none of off, errors, all"),
        (with("access_log_format", json!("%PROTOCOL% %NOPE%")), "at 11: %NOPE% is not known"),
        (with("access_log_file", json!("/nonexistent/a.log")), "cannot write the access log to /nonexistent/a.log"),
        (with("mesh", json!("0.0.0.0:0")), "not all interfaces"),
        ("{ \"workload\": ".to_owned(), "line 1 column"),
        ("{}".to_owned(), "--workload is needed"),
    ] {
        let file = mesh.secret_file("bad.json", &text);
        let said = refusal(pillion().arg("proxy").arg("--bootstrap").arg(&file), 1);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    for path in [Path::new("/nonexistent/bootstrap.json"), mesh.scratch()] {
        let said = refusal(pillion().arg("proxy").arg("--bootstrap").arg(path), 1);
        assert!(
            said.contains("cannot read the bootstrap file") && said.contains(&path.display().to_string()),
            "{said}"
        );
    }
    assert!(refusal(pillion().args(["proxy", "--no-such-flag"]), 2).contains("--no-such-flag"));
    assert!(refusal(pillion().arg("proxy").env("PILLION_WORKERS", "many"), 1).contains("in the environment"));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mesh = Mesh::start();
    mesh.write("workload.yaml", &document(mesh.free_address()));
    let [from_file, from_environment, from_flag] = [(); 3].map(|()| mesh.free_address());
    let ready = |change: &dyn Fn(&mut Command)| {
        let mut command = proxy(&mesh, &settings(&mesh, from_file));
        change(&mut command);
        Process::spawn("sidecar", &mut command).ready()["health"].clone()
    };
    let variable = from_environment.to_string();
    assert_eq!(ready(&|_| ()), from_file.to_string());
    assert_eq!(
        ready(&|command| {
            command.env("PILLION_HEALTH", &variable);
        }),
        variable
    );
    let flag = from_flag.to_string();
    let both = |command: &mut Command| {
        command.env("PILLION_HEALTH", &variable).args(["--health", &flag]);
    };
    assert_eq!(ready(&both), flag);
    // All of it by environment, the bootstrap file's name included.
    let file = mesh.secret_file("bootstrap.json", &settings(&mesh, from_file).to_string());
    let mut command = pillion();
    command.arg("proxy").env("PILLION_BOOTSTRAP", &file).env("PILLION_HEALTH", &variable);
    assert_eq!(Process::spawn("sidecar", &mut command).ready()["health"], variable);
    assert!(fs::metadata(&file).is_ok());
}

#[test]
fn a_sidecar_that_never_became_ready_stops_at_once() {
    let mesh = Mesh::start();
    let health = mesh.free_address();
    mesh.kill_control_plane();
    let mut sidecar = Process::spawn("sidecar", &mut proxy(&mesh, &settings(&mesh, health)));
    until("it is waiting", || readiness(health).status == 503);
    assert_eq!(sidecar.terminate().code(), Some(0));
    assert_eq!(sidecar.stdout(), "");
}
