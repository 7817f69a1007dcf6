//! `/config_dump` and `/clusters`: what is in force, read from the snapshots that requests use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pillion_wire::exposition::{Family, Kind, Point, Text, Value as Sample};
use serde_json::{Value, json};

use super::treatment::{budget, treatment};
use super::{health, names, shedding, stand};
use crate::config::{Entry, LbPolicy};
use crate::identity::Identity;
use crate::policy::rate_limit::Limiter;
use crate::proxy::Shared;
use crate::snapshot::{Action, Choice, Cluster, Filters, GlobalLimit, Lookup, Route, Split, Target};
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
                "global_rate_limit": port.global.as_ref().map(|limit| asked(limit)),
                "load_shedding": port.config.load_shedding.as_ref().map(shedding::settings),
                "rate_limits": port.limiters.iter().map(|limiter| limit(limiter)).collect::<Vec<_>>(),
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

fn entry(entry: &Entry) -> Value {
    json!({ "key": entry.key, "value": format!("{:?}", entry.value) })
}

/// Who is asked about requests, and how many questions are under way.
fn asked(limit: &GlobalLimit) -> Value {
    let config = &limit.config;
    json!({
        "cluster": config.cluster,
        "domain": config.domain,
        "timeout_ms": config.timeout.as_millis(),
        "on_failure": config.on_failure.map_or_else(|| "allow".to_owned(), |status| format!("deny with {status}")),
        "descriptors": config.descriptors.iter().map(|told| told.entries.iter().map(entry).collect()).collect::<Vec<Value>>(),
        "calls": limit.calls.count(),
    })
}

/// A limit as it was told, and how many keys it remembers.
fn limit(limiter: &Limiter) -> Value {
    json!({ "limit": limiter.config(), "keys": limiter.keys() })
}

/// Every cluster in use with its limits and hosts.
pub(super) fn clusters(shared: &Shared) -> Value {
    let cluster = |cluster: &Arc<Cluster>| {
        let hosts: Vec<Value> = cluster.upstream.members().iter().map(|known| member(known, cluster)).collect();
        let (spilled, panicked) = cluster.upstream.rescued();
        let value = json!({
            "balancing": format!("{:?}", cluster.config.lb),
            "picks_spilled_over": spilled,
            "picks_in_panic": panicked,
            "limits": stand::limits(cluster),
            "retry_budget": budget(cluster),
            "connection_age_ms": cluster.config.keep.age.map(|age| age.limit.as_millis()),
            "health_checks": cluster.config.health.as_ref().map(|check| format!("{check:?}")),
            "dns": names::of(shared, cluster),
            "hosts": hosts,
        });
        (cluster.config.name.clone(), value)
    };
    let inbound = shared.inbound.load();
    let all = shared.clusters();
    all.iter().map(cluster).chain(shedding::ports(&inbound)).collect::<serde_json::Map<_, _>>().into()
}

/// Tells the metrics what changes too often to be told each time: what is in use of limits, and who is left alone.
pub(super) fn gauge(shared: &Shared) {
    let metrics = &shared.telemetry.metrics;
    metrics.clear_cluster_gauges();
    shedding::gauge(&shared.inbound.load(), metrics);
    for cluster in shared.clusters() {
        let name = cluster.upstream.name();
        if cluster.config.health.is_some() {
            let (healthy, unhealthy) = cluster.upstream.health();
            metrics.health.healthy(name, healthy);
            metrics.hosts_out(name, "health_check", unhealthy);
        }
        names::gauge(shared, &cluster);
        let Some(rules) = &cluster.config.resilience else { continue };
        if rules.limits.is_some() {
            for (limit, (used, waiting)) in stand::in_use(&cluster) {
                metrics.limit_in_use(name, limit, used);
                if limit != "retries" {
                    metrics.limit_in_use(name, stand::pending(limit), waiting);
                }
            }
        }
        if rules.judges() {
            let (open, ejected) = cluster.upstream.out_of_service();
            metrics.hosts_out(name, "breaker_open", open);
            metrics.hosts_out(name, "ejected", ejected);
        }
    }
}

/// Picks of hosts that were not as they should be: of clusters that had to make some.
pub(super) fn rescued(shared: &Shared) -> Family {
    let clusters = shared.directory.outbound().load_full().clusters();
    let points = clusters.iter().flat_map(|cluster| {
        let (spilled, panicked) = cluster.upstream.rescued();
        let all = [("spilled_over", spilled), ("panic", panicked)].into_iter().filter(|(_, count)| *count > 0);
        all.map(|(reason, count)| {
            let labels =
                vec![("cluster".into(), Text::from(cluster.upstream.name())), ("reason".into(), Text::from(reason))];
            #[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are not seen")]
            let value = Sample::Number(count as f64);
            Point { labels, value }
        })
    });
    Family {
        name: "pillion_picks_rescued".into(),
        help: "Picks of hosts of another zone or priority, or regardless of health, because too few were healthy."
            .into(),
        kind: Kind::Counter,
        points: points.collect(),
    }
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
    json!({ "routes": routes, "tls": tls, "tcp": target.tcp.as_ref().map(split), "tcp_lasts": target.tcp.as_ref().map(lasts) })
}

/// How long connections of opaque TCP last, in milliseconds; null where there is no limit.
fn lasts(split: &Split) -> Value {
    let millis = |duration: Option<Duration>| duration.map(|duration| duration.as_millis());
    json!({ "idle_ms": millis(split.lasts().idle), "max_duration_ms": millis(split.lasts().most) })
}

fn route(route: &Route) -> Value {
    let action = match &route.action {
        Action::Forward(clusters) => split(clusters),
        Action::Redirect(redirect) => json!({ "redirect": format!("{redirect:?}") }),
        Action::DirectResponse { status, .. } => json!({ "status": status.as_u16() }),
    };
    let mut value = json!({
        "name": &*route.name,
        "match": format!("{:?}", route.matches),
        "action": action,
        "filters": route.filters.as_ref().map(|filters| filters_of(filters)),
        "treatment": treatment(route.treatment.as_deref()),
    });
    if let (Some(fallback), Some(fields)) = (&route.fallback, value.as_object_mut()) {
        let clusters: Vec<&str> = fallback.clusters.iter().map(|cluster| cluster.config.name.as_str()).collect();
        let status = fallback.response.as_ref().map(|(status, _)| status.as_u16());
        fields.insert("fallback".to_owned(), json!({ "clusters": clusters, "status": status }));
    }
    value
}

fn filters_of(filters: &Filters) -> Value {
    let mirrors: Vec<Value> = filters
        .mirrors
        .iter()
        .map(|mirror| json!({ "cluster": mirror.cluster.config.name, "per_million": mirror.share.0 }))
        .collect();
    json!({
        "cors": filters.cors.as_ref().map(|cors| format!("{cors:?}")),
        "fault": filters.fault.as_ref().map(|fault| format!("{fault:?}")),
        "session": filters.session.as_ref().map(|session| format!("{session:?}")),
        "path": filters.path.as_ref().map(|path| format!("{path:?}")),
        "mirrors": mirrors,
    })
}

fn split(split: &Split) -> Value {
    let hash: Vec<String> = split.hash().iter().map(|policy| format!("{policy:?}")).collect();
    let choice = |(weight, choice): (u64, &Choice)| {
        let changes = choice.changes.as_ref().map(|changes| format!("{changes:?}"));
        let mut value = json!({ "cluster": choice.cluster.config.name, "weight": weight, "changes": changes });
        if let Some(object) = value.as_object_mut().filter(|_| !hash.is_empty()) {
            object.insert("hash".to_owned(), json!(hash));
        }
        value
    };
    split.choices().map(choice).collect()
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
    let mut value = json!({
        "name": host.key().name.as_deref(),
        "address": host.address(),
        "mesh_port": host.key().mesh.as_ref().map(|mesh| mesh.port),
        "identity": host.key().mesh.as_ref().map(|mesh| mesh.identity.to_string()),
        "in_flight": host.in_flight(),
        "requests": requests,
        "connect_failures": failures,
        "usable": host.is_usable(tokio::time::Instant::now),
    });
    if let Some(fields) = value.as_object_mut() {
        fields.extend(stand::host(&host.report(), tokio::time::Instant::now()));
        if let Some(known) = host.health() {
            fields.insert("health_check".to_owned(), health::report(&known, tokio::time::Instant::now()));
        }
    }
    value
}
