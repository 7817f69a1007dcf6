//! `/config_dump` and `/clusters`: what is in force, read from the snapshots that requests use.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::config::LbPolicy;
use crate::identity::Identity;
use crate::proxy::Shared;
use crate::snapshot::{Action, Cluster, Lookup, Outbound, Route, Split, Target};
use crate::upstream::{Host, Member};

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
    for target in known(&outbound) {
        for cluster in used_by(target) {
            let hosts: Vec<Value> = cluster.upstream.members().iter().map(|known| member(known, cluster)).collect();
            let (spilled, panicked) = cluster.upstream.rescued();
            let value = json!({
                "balancing": format!("{:?}", cluster.config.lb),
                "picks_spilled_over": spilled,
                "picks_in_panic": panicked,
                "hosts": hosts,
            });
            clusters.insert(cluster.config.name.clone(), value);
        }
    }
    json!(clusters)
}

/// Picks of hosts that were not as they should be, as OpenMetrics text: of clusters that had to make some.
pub(super) fn rescued(shared: &Shared) -> String {
    let outbound = shared.directory.outbound().load();
    let clusters: BTreeMap<&str, (u64, u64)> = known(&outbound)
        .flat_map(|target| used_by(target))
        .map(|cluster| (cluster.config.name.as_str(), cluster.upstream.rescued()))
        .collect();
    let mut text = "# HELP pillion_picks_rescued Picks of hosts of another zone or priority, or regardless of health, \
                    because too few were healthy.\n# TYPE pillion_picks_rescued counter\n"
        .to_owned();
    for (cluster, (spilled, panicked)) in clusters {
        for (reason, count) in
            [("spilled_over", spilled), ("panic", panicked)].into_iter().filter(|(_, count)| *count > 0)
        {
            // Writing to a String cannot fail; a cluster's name is quoted as JSON strings are, which is how labels are.
            let name = json!(cluster);
            let _infallible =
                writeln!(text, "pillion_picks_rescued_total{{cluster={name},reason=\"{reason}\"}} {count}");
        }
    }
    text
}

fn known(outbound: &Outbound) -> impl Iterator<Item = &Arc<Target>> {
    outbound.targets.values().filter_map(|lookup| match lookup {
        Lookup::Known(target) => Some(target),
        Lookup::Unknown | Lookup::Refused => None,
    })
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
    json!({ "name": &*route.name, "match": format!("{:?}", route.matches), "action": action })
}

fn split(split: &Split) -> Value {
    let hash: Vec<String> = split.hash().iter().map(|policy| format!("{policy:?}")).collect();
    let cluster = |(weight, cluster): (u64, &Arc<Cluster>)| {
        let mut value = json!({ "cluster": cluster.config.name, "weight": weight });
        if let Some(object) = value.as_object_mut().filter(|_| !hash.is_empty()) {
            object.insert("hash".to_owned(), json!(hash));
        }
        value
    };
    split.clusters().map(cluster).collect()
}

fn member(member: &Member, cluster: &Cluster) -> Value {
    let mut value = host(&member.host);
    let mut add = |key: &str, field: Value| value.as_object_mut().map(|object| object.insert(key.to_owned(), field));
    add("priority", json!(member.priority));
    add("weight", json!(member.weight));
    if let LbPolicy::PeakEwma { decay, .. } = cluster.config.lb.policy {
        let latency = member.host.latency(tokio::time::Instant::now(), decay);
        add("expected_latency_ms", json!(latency.map(|seconds| seconds * 1000.0)));
    }
    value
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
