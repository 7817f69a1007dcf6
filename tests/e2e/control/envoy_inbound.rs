//! The inbound listener of a workload, served by Envoy itself.

use serde_json::json;

use super::client::Probe;
use super::{envoy, policy, soon};
use crate::support::{Mesh, Process, curl};

#[test]
fn envoy_takes_the_limit_of_a_port_and_keeps_it() {
    let mesh = Mesh::start();
    mesh.service("probe", &[("web", 80, "http")]);
    let ip = mesh.ip();
    mesh.write(
        "workload-probe.yaml",
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
             metadata: {{ name: probe, namespace: shop, labels: {{ app: probe }} }}\n\
             spec: {{ address: {ip}, serviceAccount: probe, ports: [ {{ name: web, port: 8080 }} ], mesh: {{ port: 15008 }} }}\n"
        ),
    );
    policy(
        &mesh,
        "probe",
        "{ loadShedding: { maxConcurrencyLimit: 77, minConcurrencyLimit: 4, minRtt: { requestCount: 5, jitter: 0 }, \
         criticality: { values: { batch: SHEDDABLE } } } }",
    );
    let node = json!({ "id": "shop/probe", "user_agent_name": "envoy" });
    let probe = Probe::open_as(&mesh, "delta", &node);
    let name = format!("pillion/inbound?xds.resource.listening_address={ip}:15008");
    probe.send("Listener", json!({ "resourceNamesSubscribe": [name] }));
    probe.responses(1);

    let (listener, admin) = (mesh.free_address(), mesh.free_address());
    let file = mesh.scratch().join("listeners.pb");
    probe.write_listener(listener.port(), &file);
    let bootstrap = mesh.scratch().join("envoy.yaml");
    let config = json!({
        "node": { "id": "alone", "cluster": "alone" },
        "admin": { "address": { "socket_address": { "address": ip, "port_value": admin.port() } } },
        "dynamic_resources": {
            "lds_config": { "resource_api_version": "V3", "path_config_source": { "path": file } },
        },
    });
    std::fs::write(&bootstrap, config.to_string()).expect("a file");
    let _envoy = Process::spawn("envoy", &mut envoy::command(&bootstrap));
    let statistics = || curl(&[&format!("http://{admin}/stats?filter=adaptive_concurrency|lds.update")]).text();
    let gauge = |name: &str| {
        let text = statistics();
        let value = text.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.ends_with(name)));
        value.map(|(_, value)| value.parse::<u64>().expect("a number"))
    };
    soon("Envoy serves the listener", || {
        assert_eq!(gauge("lds.update_rejected").unwrap_or_default(), 0, "{}", statistics());
        curl(&[&format!("http://{listener}/")]).status == 200
    });
    soon("Envoy has measured the latency", || {
        assert_eq!(curl(&[&format!("http://{listener}/")]).status, 200);
        gauge("gradient_controller.min_rtt_calculation_active") == Some(0)
    });
    assert!(gauge("gradient_controller.concurrency_limit").is_some_and(|limit| limit <= 77), "{}", statistics());
}
