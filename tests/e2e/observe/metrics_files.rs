//! The files for Grafana and Prometheus, and the reference of metrics, against what a real mesh shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{Mesh, Workload, curl, in_workspace, nginx, run, tool, until};

/// Names of all families that a sidecar (with those of Istio) and the control plane show, with the labels that were seen.
fn shown() -> BTreeMap<String, BTreeSet<String>> {
    let mesh = Mesh::start();
    let app = nginx(&mesh, "location / { return 200 'fine'; }\n");
    mesh.service("site", &[("http", 80, "http")]);
    let server = mesh.workload(Workload::new("site").port("http", app.address));
    let client = mesh.workload(Workload::new("caller").setting("metrics_istio", "on"));
    assert_eq!(curl(&[&format!("http://{}/", client.outbound()), "-H", "Host: site.shop"]).status, 200);
    until("it is counted", || server.metric("pillion_requests_total", &[]) == 1.0);
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for address in [client.metrics_address(), server.metrics_address(), mesh.admin_address()] {
        let page = curl(&[&format!("http://{address}/metrics")]).text();
        let mut family = String::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                rest.split_once(' ').expect("a kind").0.clone_into(&mut family);
                shown.entry(family.clone()).or_default();
            } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
                let names = labels.split("=\"").filter_map(|part| part.rsplit(['"', ',', '{']).next());
                let names = names.filter(|name| !name.is_empty() && !name.contains('}') && *name != "le");
                shown.entry(family.clone()).or_default().extend(names.map(str::to_owned));
            }
        }
    }
    shown
}

/// Names of metrics in PromQL: all words with our prefixes.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let prefixes = ["pillion_", "http_server_", "http_client_", "process_", "istio_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

#[test]
fn dashboards_rules_and_reference_name_what_there_is() {
    let shown = shown();
    let mut files: Vec<_> = fs::read_dir(in_workspace("telemetry/grafana")).expect("there").flatten().collect();
    files.sort_by_key(fs::DirEntry::path);
    assert_eq!(files.len(), 3);
    for file in files {
        let text = fs::read_to_string(file.path()).expect("readable");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
        let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().expect("PromQL")).collect();
        assert!(expressions.len() > 10, "{}", file.path().display());
        for name in expressions.iter().flat_map(|expression| named(expression)) {
            assert!(shown.contains_key(family(&name)), "{} asks for {name}", file.path().display());
        }
    }
    let rules = fs::read_to_string(in_workspace("telemetry/prometheus/alerts.yml")).expect("readable");
    let expressions = rules.split("expr:").skip(1).map(|rule| rule.split("labels:").next().unwrap_or_default());
    for name in expressions.flat_map(named) {
        assert!(shown.contains_key(family(&name)), "alerts.yml asks for {name}");
    }
    let reference = fs::read_to_string(in_workspace("docs/metrics.md")).expect("readable");
    let told: BTreeMap<&str, &str> =
        reference.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")).collect();
    for (name, labels) in &shown {
        let row = told.get(name.as_str()).unwrap_or_else(|| panic!("docs/metrics.md does not know {name}"));
        let missing: Vec<_> = labels.iter().filter(|label| !row.contains(&format!("`{label}`"))).collect();
        assert!(missing.is_empty() || name.starts_with("istio_"), "docs/metrics.md: {name} has {missing:?}, too");
    }
    let gone: Vec<_> = told.keys().filter(|name| !shown.contains_key(**name)).collect();
    assert!(gone.is_empty(), "docs/metrics.md tells of {gone:?}");
}

#[test]
fn promtool_finds_the_rules_well_made_and_their_tests_pass() {
    let folder = in_workspace("telemetry/prometheus");
    let promtool =
        |arguments: &[&str]| run(Command::new(tool("promtool", "prometheus")).current_dir(&folder).args(arguments));
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "scrape.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}
