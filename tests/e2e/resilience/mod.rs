//! What the mesh does when services fail, slow down, move and overload.

mod actor;
mod balance;
mod breaker;
mod connections;
mod dns;
mod fallback;
mod global_rate_limit;
mod grpc;
mod health;
mod joined;
mod limits;
mod loops;
mod rate_limits;
mod retries;
mod sessions;
mod shedding;
mod storm;
mod streams;
mod subsets;
mod timeouts;

use serde_json::Value;

use crate::support::{Curl, Mesh, Sidecar, curl, until};

/// curl for a URL whose host is reached through a sidecar's outbound port.
fn ask(client: &Sidecar, url: &str, arguments: &[&str]) -> Curl {
    let connect_to = format!("::{}", client.outbound());
    curl(&[&["--connect-to", &connect_to, url], arguments].concat())
}

/// Writes a `TrafficPolicy` for a Service of namespace `shop`; `spec` is the rest of its spec, as YAML in braces.
fn policy(mesh: &Mesh, service: &str, spec: &str) {
    mesh.write(
        &format!("policy-{service}.yaml"),
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {service}, namespace: shop }}\n\
             spec:\n  targetRefs: [ {{ kind: Service, name: {service} }} ]\n  {spec}\n"
        ),
    );
}

/// Waits until the first route of `destination` at a sidecar is treated as `wanted` says, asking for it once.
fn treated(client: &Sidecar, destination: &str, wanted: impl Fn(&Value) -> bool) {
    let _asked = ask(client, &format!("http://{destination}/priming"), &[]);
    until("the policy is in force", || {
        let dump: Value = serde_json::from_str(&client.admin_page("/config_dump")).expect("JSON");
        wanted(&dump["outbound"][destination]["routes"][0]["treatment"])
    });
}

/// The access log's line for a path, once it is there: (reason, flag).
fn logged(sidecar: &Sidecar, path: &str) -> (String, String) {
    let mut found = Value::Null;
    until("the access log has the request", || {
        let line = sidecar.access_log().into_iter().find(|line| line["path"] == path);
        found = line.unwrap_or_default();
        !found.is_null()
    });
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("response_flags"))
}

fn says(reason: &str, flag: &str) -> (String, String) {
    (reason.to_owned(), flag.to_owned())
}
