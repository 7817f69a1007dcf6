//! `/config_dump` and `/clusters`: what is in force, read from the snapshots that requests use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::treatment::{budget, treatment};
use crate::identity::Identity;
use crate::proxy::Shared;
use crate::snapshot::{Action, Cluster, Lookup, Route, Split, Target};
use crate::upstream::Host;

/// What stands for a destination or host that the control plane does not know.
const UNKNOWN: &str = "unknown to the control plane";

/// Identity, inbound ports outbound destinations, and host names that DNS asked for.
pub(super) fn config(shared: &Shared) -> Value {
    let identity = shared.identity.load();
    let inbound = shared.inbound.load();
    let ports: Vec<Value> = inbound
        .as_ref()
        .iter()
        .flat_map(|inbound| inbound.ports.values())
        .map(|port| {
            json!({
                "port": port.config.port,
                "application": port.config.application,
                "protocol": format!("{:?}", port.config.protocol).to_lowercase(),
                "access": format!("{:?}", port.config.access).to_lowercase(),
            })
        })
        .collect();
    let outbound = shared.directory.outbound().load();
    let destinations: BTreeMap<String, Value> = outbound
        .targets
        .iter()
        .map(|(destination, lookup)| {
            let value = match lookup {
                Lookup::Known(known) => target(known),
                Lookup::Unknown => json!(UNKNOWN),
                Lookup::Refused => json!("refused"),
            };
            (destination.to_string(), value)
        })
        .collect();
    let hosts: BTreeMap<&str, Value> = outbound
        .hosts
        .iter()
        .map(|(host, lookup)| {
            let value = match lookup {
                Lookup::Known(addresses) => json!(&**addresses),
                Lookup::Unknown => json!(UNKNOWN),
                Lookup::Refused => json!("refused"),
            };
            (host.as_str(), value)
        })
        .collect();
    json!({
        "identity": identity.as_ref().as_ref().map(certificate),
        "inbound": ports,
        "outbound": destinations,
        "hosts": hosts,
    })
}

/// Every cluster in use with its hosts.
pub(super) fn clusters(shared: &Shared) -> Value {
    let outbound = shared.directory.outbound().load();
    let mut clusters: BTreeMap<String, Value> = BTreeMap::new();
    for target in outbound.targets.values().filter_map(|lookup| match lookup {
        Lookup::Known(target) => Some(target),
        Lookup::Unknown | Lookup::Refused => None,
    }) {
        for cluster in used_by(target) {
            let hosts: Vec<Value> = cluster.upstream.hosts().iter().map(|known| host(known)).collect();
            clusters.insert(cluster.config.name.clone(), json!({ "hosts": hosts, "retry_budget": budget(cluster) }));
        }
    }
    json!(clusters)
}

fn used_by(target: &Target) -> impl Iterator<Item = &Arc<Cluster>> {
    let routes = target.http.iter().flat_map(|routes| &routes.virtual_hosts).flat_map(|host| &host.routes);
    let http = routes.filter_map(|route| match &route.action {
        Action::Forward(split) => Some(split),
        Action::DirectResponse { .. } => None,
    });
    http.chain(&target.tcp).chain(target.tls.all()).flat_map(Split::clusters).map(|(_, cluster)| cluster)
}

fn certificate(identity: &Identity) -> Value {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "id": identity.id.to_string(),
        "not_before": seconds(identity.not_before),
        "not_after": seconds(identity.not_after),
        "roots": identity.roots.len(),
    })
}

fn target(target: &Target) -> Value {
    let routes: Option<Vec<Value>> = target
        .http
        .as_ref()
        .map(|routes| routes.virtual_hosts.iter().flat_map(|host| &host.routes).map(route).collect());
    let tls: Vec<Value> = target
        .tls
        .iter()
        .map(|(names, clusters)| json!({ "server_names": names, "clusters": split(clusters) }))
        .collect();
    json!({ "routes": routes, "tls": tls, "tcp": target.tcp.as_ref().map(split) })
}

fn route(route: &Route) -> Value {
    let action = match &route.action {
        Action::Forward(clusters) => split(clusters),
        Action::DirectResponse { status, .. } => json!({ "status": status.as_u16() }),
    };
    json!({
        "name": &*route.name,
        "match": format!("{:?}", route.matches),
        "action": action,
        "treatment": treatment(route.treatment.as_deref()),
    })
}

fn split(split: &Split) -> Value {
    split.clusters().map(|(weight, cluster)| json!({ "cluster": cluster.config.name, "weight": weight })).collect()
}

fn host(host: &Host) -> Value {
    let (requests, failures) = host.totals();
    json!({
        "address": host.key().address,
        "mesh_port": host.key().mesh.as_ref().map(|mesh| mesh.port),
        "identity": host.key().mesh.as_ref().map(|mesh| mesh.identity.to_string()),
        "in_flight": host.in_flight(),
        "requests": requests,
        "connect_failures": failures,
        "usable": host.is_usable(tokio::time::Instant::now),
    })
}
