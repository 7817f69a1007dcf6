//! The graph: who calls whom, how often, how well, how fast.

use std::collections::{BTreeMap, BTreeSet};

use pillion_wire::spiffe::SpiffeId;
use serde::Serialize;

use super::topology::{NodeKey, Topology};
use crate::{
    core::mesh::Mesh,
    load::{
        report::{EdgeKey, Sums},
        ring::Add as _,
        store::{Reporter, Reports, Store},
    },
};

/// The graph of a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Graph {
    /// When it was made, in Unix seconds.
    pub at: u64,
    /// Seconds that rates and latencies are over.
    pub window: u64,
    /// Who takes part.
    pub nodes: Vec<Node>,
    /// Who calls whom.
    pub edges: Vec<Edge>,
}

/// A Service with its workloads, a workload without one, a client, or something outside.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// `kind/namespace/name`.
    pub id: String,
    /// `service`, `workload`, `client`, `external`.
    pub kind: &'static str,
    /// Its namespace; empty outside.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its workloads inside the mesh.
    pub workloads: Vec<Member>,
    /// Endpoints as their callers see them, by state.
    pub endpoints: BTreeMap<String, usize>,
}

/// A workload of a node.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its sidecar has an xDS stream.
    pub connected: bool,
    /// Its sidecar refuses something of the newest that it was sent.
    pub refused: bool,
    /// When its last load report came, in Unix seconds.
    pub reported: Option<u64>,
}

/// Traffic from one node to another.
#[derive(Clone, Debug, Serialize)]
pub struct Edge {
    /// Node that calls.
    pub from: String,
    /// Node that is called.
    pub to: String,
    /// Who says so: `client` (the caller), or `server` where the caller does not report.
    pub reporter: &'static str,
    /// Quiet over the whole window: seconds since the last of its traffic, up to 15 minutes. Nothing when it is not.
    pub idle_seconds: Option<u64>,
    /// What it is like.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Rates over a window.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Traffic {
    /// Requests within the window.
    pub requests: u64,
    /// Requests per second; 0 for what carries connections alone.
    pub requests_per_second: f64,
    /// Share of requests that succeeded, 0 to 1.
    pub success_rate: Option<f64>,
    /// Requests within the window that were sent to nobody: refused by limit, breaker or policy.
    pub dropped: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Half the requests were faster, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95 % were.
    pub p95_ms: Option<f64>,
    /// 99 % were.
    pub p99_ms: Option<f64>,
    /// `all`, `some` or `none` of it over mutual TLS; nothing where that is not said.
    pub mutual_tls: Option<&'static str>,
    /// TCP connections within the window.
    pub tcp_connections: u64,
    /// Those that failed.
    pub tcp_failed: u64,
    /// Bytes of TCP connections per second, both ways.
    pub tcp_bytes_per_second: f64,
}

/// What was added up of an edge, and at which rate.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    pub(super) sums: Sums,
    requests_per_second: f64,
    tcp_bytes_per_second: f64,
    says_tls: bool,
    newest: u64,
}

impl Flow {
    pub(super) fn add(&mut self, sums: &Sums, seconds: f64, says_tls: bool) {
        self.sums.add(sums);
        if seconds > 0.0 {
            self.requests_per_second += sums.requests() as f64 / seconds;
            self.tcp_bytes_per_second += (sums.tcp_received as f64 + sums.tcp_sent as f64) / seconds;
        }
        self.says_tls |= says_tls;
    }

    pub(super) fn traffic(&self) -> Traffic {
        let sums = &self.sums;
        let sent = sums.requests() - u64::from(sums.dropped);
        let (secured, all) = if sent > 0 {
            (u64::from(sums.mutual), sent)
        } else {
            (u64::from(sums.tcp_mutual), u64::from(sums.tcp_closed))
        };
        let mutual_tls = match secured {
            _ if !self.says_tls || all == 0 => None,
            0 => Some("none"),
            some if some < all => Some("some"),
            _ => Some("all"),
        };
        Traffic {
            requests: sums.requests(),
            requests_per_second: round(self.requests_per_second, 100.0),
            success_rate: sums.success_rate(),
            dropped: sums.dropped.into(),
            retries: sums.retries.into(),
            p50_ms: sums.quantile(0.5).map(|quantile| round(quantile, 1000.0)),
            p95_ms: sums.quantile(0.95).map(|quantile| round(quantile, 1000.0)),
            p99_ms: sums.quantile(0.99).map(|quantile| round(quantile, 1000.0)),
            mutual_tls,
            tcp_connections: u64::from(sums.tcp_opened.max(sums.tcp_closed)),
            tcp_failed: sums.tcp_failed.into(),
            tcp_bytes_per_second: round(self.tcp_bytes_per_second, 1.0),
        }
    }
}

fn round(number: f64, digits: f64) -> f64 {
    (number * digits).round() / digits
}

/// Sidecars by workload (`namespace/name`): connected, and whether something was refused.
pub(super) type Sidecars = BTreeMap<String, bool>;

/// What the graph is made of.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) store: &'a Store,
    pub(super) sidecars: &'a Sidecars,
    pub(super) now: u64,
}

/// The graph of the last `window` seconds.
pub(super) fn graph(sources: &Sources<'_>, window: u64) -> Graph {
    let topology = Topology::new(sources.mesh);
    let mut nodes: BTreeMap<NodeKey, Node> = BTreeMap::new();
    for (key, workload) in topology.workloads() {
        let id = workload.to_string();
        let member = Member {
            name: workload.name.clone(),
            connected: sources.sidecars.contains_key(&id),
            refused: sources.sidecars.get(&id).copied().unwrap_or_default(),
            reported: None,
        };
        nodes.entry(key.clone()).or_insert_with(|| Node::new(&key)).workloads.push(member);
    }
    let mut flows: BTreeMap<(NodeKey, NodeKey, bool), Flow> = BTreeMap::new();
    let mut reported: BTreeMap<(String, String), u64> = BTreeMap::new();
    sources.store.read(sources.now, |all| {
        let reporting = accounts(all);
        for (reporter, reports) in all {
            let own = topology.of_reporter(reporter);
            nodes.entry(own.clone()).or_insert_with(|| Node::new(&own));
            reported.insert((reporter.namespace.clone(), reporter.name.clone()), reports.last);
            for (key, rings) in reports.edges.iter().filter(|(key, _)| is_told(key, &reporting)) {
                let (sums, seconds) = reports.rate(rings, sources.now, window);
                let Some(newest) = rings.newest() else { continue };
                let (from, to) = match key.inbound {
                    true => (topology.of_caller(&key.peer), own.clone()),
                    false => (own.clone(), topology.of_target(key, &reporter.namespace)),
                };
                let flow = flows.entry((from, to, key.inbound)).or_default();
                flow.newest = flow.newest.max(newest);
                if !sums.is_empty() {
                    flow.add(&sums, seconds, reporter.dialect == "pillion");
                }
            }
            for (cluster, endpoints) in &reports.endpoints {
                let key = EdgeKey::outbound(cluster);
                let to = topology.of_target(&key, &reporter.namespace);
                let node = nodes.entry(to.clone()).or_insert_with(|| Node::new(&to));
                for endpoint in endpoints.iter().filter(|endpoint| !endpoint.state.is_empty()) {
                    *node.endpoints.entry(endpoint.state.clone()).or_default() += 1;
                }
            }
        }
    });
    for node in nodes.values_mut() {
        for member in &mut node.workloads {
            member.reported = reported.get(&(node.namespace.clone(), member.name.clone())).copied();
        }
    }
    // Who told of it may have changed: what is quiet on one side is told by the other.
    let told: BTreeSet<_> = flows.keys().cloned().collect();
    let quiet: BTreeSet<_> =
        flows.iter().filter(|(_, flow)| flow.sums.is_empty()).map(|(key, _)| key.clone()).collect();
    flows.retain(|key, _| {
        let other = (key.0.clone(), key.1.clone(), !key.2);
        !quiet.contains(key) || !told.contains(&other) || (!key.2 && quiet.contains(&other))
    });
    for (from, to, _) in flows.keys() {
        for key in [from, to] {
            nodes.entry(key.clone()).or_insert_with(|| Node::new(key));
        }
    }
    let edges = flows.iter().map(|((from, to, inbound), flow)| Edge {
        from: from.id(),
        to: to.id(),
        reporter: if *inbound { "server" } else { "client" },
        idle_seconds: flow.sums.is_empty().then(|| sources.now.saturating_sub(flow.newest)),
        traffic: flow.traffic(),
    });
    Graph { at: sources.now, window, edges: edges.collect(), nodes: nodes.into_values().collect() }
}

impl Node {
    fn new(key: &NodeKey) -> Self {
        Self {
            id: key.id(),
            kind: key.kind.name(),
            namespace: key.name.namespace.clone(),
            name: key.name.name.clone(),
            workloads: Vec::new(),
            endpoints: BTreeMap::new(),
        }
    }
}

/// The accounts of those who report.
pub(super) fn accounts(all: &BTreeMap<Reporter, Reports>) -> BTreeSet<(&str, &str)> {
    all.keys().map(|reporter| (reporter.namespace.as_str(), reporter.service_account.as_str())).collect()
}

/// What callee and caller both report is told by the caller alone: it knows of failures that never arrived.
pub(super) fn is_told(key: &EdgeKey, reporting: &BTreeSet<(&str, &str)>) -> bool {
    if !key.inbound {
        return true;
    }
    let caller = key.peer.parse::<SpiffeId>();
    caller.map_or(true, |id| !reporting.contains(&(id.namespace(), id.service_account())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::tests::{objects, service, workload},
        load::report::{Endpoint, Told},
    };

    /// What each API call does under the store's lock: with a thousand workloads of one Service, anything that goes
    /// through all of them per edge or per endpoint would be ten million steps.
    #[test]
    fn a_large_mesh_is_drawn_without_going_through_it_for_each_edge() {
        const WORKLOADS: u16 = 1000;
        let mut documents: String =
            (0..8).map(|number| service(&format!("s{number}"), "[{port: 80, targetPort: web}]")).collect();
        for number in 0..WORKLOADS {
            let address = format!("address: 10.0.{}.{}, mesh: {{port: 15008}}", number / 250, number % 250 + 1);
            let ports = "ports: [{name: web, port: 8080}]";
            documents.push_str(&workload(&format!("w{number}"), "s0", &format!("{address}, {ports}")));
        }
        let (mesh, _) = Mesh::compile(&objects(&documents), None);
        let store = Store::default();
        for number in 0..WORKLOADS {
            let reporter = Reporter {
                namespace: "shop".to_owned(),
                name: format!("w{number}"),
                service_account: "s0".to_owned(),
                dialect: "pillion",
            };
            let endpoint = Endpoint {
                address: format!("10.0.{}.{}:8080", number / 250, number % 250 + 1),
                state: "healthy".to_owned(),
                why: String::new(),
                identity: String::new(),
                in_progress: 0,
            };
            let told = (0..8).map(|port| Told {
                key: EdgeKey::outbound(&format!("s{port}.shop:80")),
                sums: Sums { success: 1, ..Sums::default() },
                endpoints: vec![endpoint.clone()],
            });
            assert_eq!(store.take(&reporter, false, told.collect(), 5000, 1000).clusters, 0, "{number}");
        }
        let sidecars = Sidecars::new();
        let sources = Sources { mesh: &mesh, store: &store, sidecars: &sidecars, now: 1000 };
        let graph = graph(&sources, 30);
        assert_eq!((graph.nodes.len(), graph.edges.len()), (8, 8));
        assert_eq!(graph.edges.iter().map(|edge| edge.traffic.requests).sum::<u64>(), 8000);
        let of_s0 = graph.nodes.iter().find(|node| node.name == "s0").unwrap();
        assert!(of_s0.workloads.len() == 1000 && of_s0.workloads.iter().all(|member| member.reported == Some(1000)));
        assert_eq!(
            super::super::detail::node(&sources, "service/shop/s0", 30)["endpoints"].as_array().unwrap().len(),
            500
        );
        // Quiet since: the edges stay, as idle.
        let later = Sources { now: 1100, ..sources };
        assert!(super::graph(&later, 30).edges.iter().all(|edge| edge.idle_seconds == Some(95)));
    }

    #[test]
    fn mutual_tls_is_all_some_or_none_of_what_was_sent() {
        for (mutual, dropped, expected) in [(0, 0, "none"), (5, 0, "some"), (10, 0, "all"), (8, 2, "all")] {
            let sums = Sums { success: 10 - dropped, dropped, mutual, ..Sums::default() };
            let mut flow = Flow::default();
            flow.add(&sums, 10.0, true);
            assert_eq!(flow.traffic().mutual_tls, Some(expected), "{mutual} {dropped}");
        }
        let mut flow = Flow::default();
        flow.add(&Sums { success: 1, ..Sums::default() }, 1.0, false);
        assert_eq!(flow.traffic().mutual_tls, None, "others do not say");
    }
}
