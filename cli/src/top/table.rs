//! The table of `pillion top`.

use clap::ValueEnum;
use serde::Deserialize;

use crate::ps::clean;

/// What is read of the control plane's graph.
#[derive(Debug, Deserialize)]
pub(super) struct Graph {
    window: u64,
    edges: Vec<Edge>,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    workloads: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    connected: bool,
}

#[derive(Debug, Deserialize)]
struct Edge {
    from: String,
    to: String,
    reporter: String,
    requests: u64,
    requests_per_second: f64,
    success_rate: Option<f64>,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
    mutual_tls: Option<String>,
    tcp_bytes_per_second: f64,
    /// An older control plane leaves such edges out.
    #[serde(default)]
    idle_seconds: Option<u64>,
}

/// Which edges come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// Those with most requests (then bytes) per second.
    Rate,
    /// Those that fail most.
    Success,
    /// The slowest.
    P99,
    /// By name.
    Name,
}

/// The table, with a line about the mesh above it.
pub(super) fn render(mut graph: Graph, sort: Sort, rows: usize) -> String {
    graph.edges.retain(|edge| edge.idle_seconds.is_none());
    graph.edges.sort_by(|a, b| {
        let by = |key: fn(&Edge) -> f64| key(b).total_cmp(&key(a));
        let first = match sort {
            Sort::Rate => by(|edge| edge.requests_per_second).then_with(|| by(|edge| edge.tcp_bytes_per_second)),
            Sort::Success => by(|edge| 1.0 - edge.success_rate.unwrap_or(1.0)),
            Sort::P99 => by(|edge| edge.p99_ms.unwrap_or(-1.0)),
            Sort::Name => std::cmp::Ordering::Equal,
        };
        first.then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
    });
    let members = || graph.nodes.iter().flat_map(|node| &node.workloads);
    let mut text = format!(
        "{} of {} sidecars connected, {} edges, last {} s\n",
        members().filter(|member| member.connected).count(),
        members().count(),
        graph.edges.len(),
        graph.window
    );
    if graph.edges.is_empty() {
        text.push_str("no traffic was reported\n");
        return text;
    }
    let shown: Vec<&Edge> = graph.edges.iter().take(rows).collect();
    let width = |name: &str, of: fn(&Edge) -> String| {
        shown.iter().map(|edge| of(edge).chars().count()).max().unwrap_or(0).max(name.len())
    };
    let (from, to) = (width("FROM", |edge| label(&edge.from)), width("TO", Edge::callee));
    text.push_str(&format!(
        "{:<from$}  {:<to$}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:<5}  {:>10}\n",
        "FROM", "TO", "REQ/S", "SUCCESS", "P50", "P95", "P99", "MTLS", "TCP"
    ));
    for edge in &shown {
        let rate = if edge.requests > 0 { format!("{:.1}", edge.requests_per_second) } else { "-".to_owned() };
        text.push_str(&format!(
            "{:<from$}  {:<to$}  {rate:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:<5}  {:>10}\n",
            label(&edge.from),
            edge.callee(),
            percent(edge.success_rate),
            milliseconds(edge.p50_ms),
            milliseconds(edge.p95_ms),
            milliseconds(edge.p99_ms),
            edge.mutual_tls.as_deref().unwrap_or("-"),
            bytes(edge.tcp_bytes_per_second),
        ));
    }
    if graph.edges.len() > shown.len() {
        text.push_str(&format!("and {} more\n", graph.edges.len() - shown.len()));
    }
    text
}

impl Edge {
    fn callee(&self) -> String {
        format!("{}{}", label(&self.to), if self.reporter == "server" { "*" } else { "" })
    }
}

/// `shop/orders` of `service/shop/orders`. What comes from others is not to move the cursor.
fn label(id: &str) -> String {
    let name = id.split_once('/').map_or(id, |(_, name)| name).trim_start_matches('/');
    clean(name)
}

/// Never rounded up to all.
fn percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(share) if share >= 1.0 => "100 %".to_owned(),
        Some(share) => format!("{:.1} %", ((share * 1000.0).round() / 10.0).min(99.9)),
    }
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") })
}

fn bytes(value: f64) -> String {
    match value {
        0.0 => "-".to_owned(),
        value if value < 1e3 => format!("{value:.0} B/s"),
        value if value < 1e6 => format!("{:.1} kB/s", value / 1e3),
        value => format!("{:.1} MB/s", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"{ "at": 1, "window": 30,
        "nodes": [ { "workloads": [ { "connected": true }, { "connected": false } ] } ],
        "edges": [
          { "from": "service/shop/web", "to": "service/shop/orders", "reporter": "client", "requests": 300,
            "requests_per_second": 10.0, "success_rate": 0.99951, "p50_ms": 1.5, "p95_ms": 20.25, "p99_ms": 120.0,
            "mutual_tls": "all", "tcp_bytes_per_second": 0.0 },
          { "from": "client//out\u001bside", "to": "service/shop/web", "reporter": "server", "requests": 0,
            "requests_per_second": 0.0, "success_rate": null, "p50_ms": null, "p95_ms": null, "p99_ms": null,
            "mutual_tls": null, "tcp_bytes_per_second": 2048.0 } ] }"#;

    fn table(sort: Sort, rows: usize) -> String {
        render(serde_json::from_str(GRAPH).unwrap(), sort, rows)
    }

    #[test]
    fn a_line_per_edge_says_it_all() {
        let text = table(Sort::Rate, 40);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "1 of 2 sidecars connected, 2 edges, last 30 s");
        let words: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(words[..5], ["shop/web", "shop/orders", "10.0", "99.9", "%"]);
        assert!(lines[3].starts_with("out?side") && lines[3].contains("shop/web*") && lines[3].ends_with("2.0 kB/s"));
    }

    #[test]
    fn rows_are_sorted_and_limited() {
        assert!(table(Sort::Name, 1).ends_with("and 1 more\n"));
        assert!(table(Sort::Name, 1).contains("out?side"));
        assert!(!table(Sort::P99, 1).contains("out?side"));
    }
}
