//! What the tests of interception stand on: pods that reach each other through their sidecars.

use std::rc::Rc;

use crate::support::{Mesh, Network, Pod, Stack, Workload, python, until};

#[test]
fn pods_on_one_network_reach_each_other_and_leave_nothing_behind() {
    let namespaces = || std::fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name());
    let own = format!("pillion-test-{}-", std::process::id());
    let left = || namespaces().filter(|name| name.to_string_lossy().starts_with(&own)).count();
    for stack in [Stack::Dual, Stack::V6] {
        let network = Network::start(stack);
        let mesh = Mesh::start_on(Rc::new(network.host("control")), &[]);
        mesh.service("web", &[("http", 80, "http")]);
        let web = Pod::start(&mesh, &network, Workload::new("web").port("http", "127.0.0.1:8080".parse().unwrap()));
        let mut files = python();
        files.args(["-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", "/etc/apt"]);
        let _files = web.spawn("http.server", &files);
        until("the application listens", || web.curl(&["http://127.0.0.1:8080/"]).status == 200);

        let client = Pod::start(&mesh, &network, Workload::new("client"));
        let response = client.curl(&["http://127.0.0.1:15001/", "-H", "Host: web.shop"]);
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(web.sidecar.access_log().len(), 1);
        assert_eq!(left(), 4);
    }
    assert_eq!(left(), 0);
}
