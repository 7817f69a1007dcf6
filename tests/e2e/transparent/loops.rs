//! Traffic that would come back to the sidecar is refused, by whatever address it is aimed there.

use super::{World, lines, say, workload};
use crate::support::{Stack, until};

#[test]
fn the_sidecars_own_ports_are_never_carried_to() {
    let world = World::start(Stack::Dual);
    let server = world.pod(workload("server", &[(7000, "access: permissive")]));
    let client = world.pod(workload("client", &[]));
    let outside = world.network.host("outside");
    let _app = lines(&server, "0.0.0.0:7000", "hello");
    for port in [15000, 15001, 15006, 15008, 15021] {
        for ip in server.host.ips() {
            // From itself, from another workload of the mesh, from outside.
            for pod in [&server, &client] {
                let said = say(pod, ip, port, &["GET / HTTP/1.1\r\nHost: x\r\n\r\n"]);
                let answer = said["answer"].as_str().unwrap_or_default();
                // Health is for everybody; the mesh port answers what is no TLS with an alert.
                let fine = port == 15021 || !answer.starts_with("HTTP/1.1 2");
                assert!(fine, "{ip}:{port}: {said}");
            }
            let url = format!("http://{}/", std::net::SocketAddr::new(ip, port));
            let answer = outside.curl(&["--max-time", "5", &url]);
            assert!(answer.status == 0 || port == 15021, "{url} from outside: {}", answer.head);
        }
    }
    for loopback in ["127.0.0.1", "::1"] {
        for port in [15001, 15006] {
            let said = say(&server, loopback, port, &["GET / HTTP/1.1\r\nHost: 127.0.0.1:15001\r\n\r\n"]);
            let answer = said["answer"].as_str().unwrap_or_default();
            assert!(!answer.starts_with("HTTP/1.1 2"), "{loopback}:{port}: {said}");
        }
    }
    assert_eq!(say(&client, server.host.ip(), 7000, &[])["answer"], "hello", "it still works");
    // A loop would have used up connections, or be using them still.
    for listener in ["outbound", "inbound"] {
        let open = || server.sidecar.metric("pillion_connections_open", &[("listener", listener)]);
        until("nothing is left open", || open() == 0.0);
    }
    assert!(server.sidecar.metric("pillion_connections_refused_total", &[("reason", "loop")]) > 0.0);
}
