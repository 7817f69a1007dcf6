//! HTTP/1.1 under load, of which the sidecars are told nothing.

use std::process::Command;

use super::{World, detections, nginx_in, workload};
use crate::support::{APPLICATION, Stack, run, tool, until};

#[test]
fn two_hundred_requests_on_four_kept_connections_all_succeed_by_service_and_by_pod_address() {
    let world = World::start(Stack::V4);
    world.service("site", "10.96.0.10", &[(80, 8080, "")]);
    let server = world.pod(workload("site", &[(8080, "")]));
    let client = world.pod(workload("client", &[]));
    let _nginx = nginx_in(&server, &world.mesh, &format!("{}:8080", server.host.ip()), "location / { return 200 hi; }");
    let by_address = format!("{}:8080", server.host.ip());
    for host in ["10.96.0.10", &by_address] {
        let mut load = Command::new(tool("h2load", "nghttp2-client"));
        load.args(["--h1", "-n", "200", "-c", "4", &format!("http://{host}/")]);
        let report = run(&mut client.host.wrap_as(APPLICATION, &[], &load));
        let all = "200 total, 200 started, 200 done, 200 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(report.contains(all) && report.contains("status codes: 200 2xx"), "{host}: {report}");
    }
    let count = |destination: &str| {
        let labels = [("destination", destination), ("tls", "mutual"), ("status", "200")];
        client.sidecar.metric("pillion_requests_total", &labels)
    };
    until("all are counted", || count("site.shop:80") == 200.0 && count(&by_address) == 200.0);
    assert_eq!(detections(&client, "http1"), 8.0, "once for each connection");
}
