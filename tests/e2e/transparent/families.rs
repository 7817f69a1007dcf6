//! IPv6 alone, and both IP families at once.

use std::net::SocketAddr;

use super::{World, detections, files, lines, nginx_in, say, say_from, workload};
use crate::support::{Pod, Stack, until};

#[test]
fn a_mesh_of_ipv6_alone_serves_as_one_of_ipv4_does() {
    let world = World::start(Stack::V6);
    world.service("web", "fd96::10", &[(80, 8080, ""), (25, 2525, "")]);
    let server = world.pod(workload("web", &[(8080, "access: permissive"), (2525, "access: permissive"), (7000, "")]));
    let client = world.pod(workload("client", &[]));
    let outside = world.network.host("outside");
    let ip = server.host.ip();
    assert!(ip.is_ipv6());
    let _web = files(&server, &world.mesh, "::1".parse().expect("literal"), 8080);
    let _greets = lines(&server, &format!("[{ip}]:2525"), "220 mail");
    let _echo = lines(&server, "[::]:7000", "");
    for url in ["http://[fd96::10]/hello.txt".to_owned(), format!("http://[{ip}]:8080/hello.txt")] {
        let answer = client.curl(&[&url]);
        assert_eq!(answer.text(), "hello\n", "{url}: {} {}", answer.head, answer.message);
        assert_eq!(outside.curl(&[&format!("http://[{ip}]:8080/hello.txt")]).text(), "hello\n", "from outside");
    }
    for (host, port) in [("fd96::10", 25), (ip.to_string().as_str(), 2525)] {
        assert_eq!(say(&client, host, port, &[])["answer"], "220 mail");
    }
    assert_eq!(say(&client, ip, 7000, &["echo"])["answer"], "echo");
    assert_eq!(say_from(&outside, ip, 2525, &[])["answer"], "220 mail");
    assert_eq!(say_from(&outside, ip, 7000, &["echo"])["error"], "Connection reset by peer", "a strict port");

    let by_address = |port: u16| SocketAddr::new(ip, port).to_string();
    until_mutual(&client, "pillion_requests_total", &["web.shop:80", &by_address(8080)]);
    until_mutual(&client, "pillion_tcp_connections_total", &["web.shop:25", &by_address(2525), &by_address(7000)]);
    let found = ["http1", "server_first", "opaque"].map(|result| detections(&client, result));
    assert_eq!(found, [2.0, 2.0, 1.0]);
}

#[test]
fn with_two_families_services_and_pods_are_reached_by_both() {
    let world = World::start(Stack::Dual);
    world.service("web", "10.96.0.10, fd96::10", &[(80, 8080, ""), (25, 2525, "")]);
    let server = world.pod(workload("web", &[(8080, ""), (2525, "access: permissive")]));
    let client = world.pod(workload("client", &[]));
    let outside = world.network.host("outside");
    let _web = nginx_in(&server, &world.mesh, "[::]:8080 ipv6only=off", "location / { return 200 hi; }");
    let _greets = lines(&server, "127.0.0.1:2525", "220 mail");
    let addresses = server.host.ips();
    for ip in ["10.96.0.10", "fd96::10"].map(|ip| ip.parse().expect("literal")) {
        let answer = client.curl(&[&format!("http://{}/", SocketAddr::new(ip, 80))]);
        assert_eq!(answer.text(), "hi", "{ip}: {} {}", answer.head, answer.message);
        assert_eq!(say(&client, ip, 25, &[])["answer"], "220 mail", "{ip}");
    }
    for ip in &addresses {
        let answer = client.curl(&[&format!("http://{}/", SocketAddr::new(*ip, 8080))]);
        assert_eq!(answer.text(), "hi", "{ip}: {} {}", answer.head, answer.message);
        assert_eq!(say(&client, ip, 2525, &[])["answer"], "220 mail", "{ip}");
        assert_eq!(say_from(&outside, ip, 2525, &[])["answer"], "220 mail", "{ip} from outside");
    }
    let of_pod = |port: u16| addresses.iter().map(|ip| SocketAddr::new(*ip, port).to_string()).collect::<Vec<_>>();
    let all = |service: &str, port: u16| [vec![service.to_owned()], of_pod(port)].concat();
    for (metric, destinations) in [
        ("pillion_requests_total", all("web.shop:80", 8080)),
        ("pillion_tcp_connections_total", all("web.shop:25", 2525)),
    ] {
        until_mutual(&client, metric, &destinations.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert_eq!(["http1", "server_first"].map(|result| detections(&client, result)), [4.0, 4.0]);
}

/// All of these destinations were reached with mutual TLS.
fn until_mutual(client: &Pod, metric: &str, destinations: &[&str]) {
    for destination in destinations {
        let labels = [("destination", *destination), ("tls", "mutual")];
        until(&format!("{destination} with mutual TLS"), || client.sidecar.metric(metric, &labels) >= 1.0);
    }
}
