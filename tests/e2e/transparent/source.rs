//! Which address the application sees as its caller's.

use super::{World, lines, say, workload};
use crate::support::{Pod, Stack};

#[test]
fn tproxy_keeps_the_callers_address_from_the_mesh_and_from_outside_in_both_families() {
    let world = World::start(Stack::Dual);
    let ports = [(7000, "access: permissive"), (7001, "")];
    let server = workload("server", &ports).setting("intercept", "tproxy");
    let host = std::rc::Rc::new(world.network.host("server"));
    let server = Pod::start_on(&world.mesh, host, server, &[]);
    let client = world.pod(workload("client", &[]));
    let outside = world.network.host("outside");
    let _any = lines(&server, "0.0.0.0:7000", "saw {peer}");
    let _six = lines(&server, "[::]:7002", "saw {peer}");
    let _loopback = lines(&server, "127.0.0.1:7001", "saw {peer}");
    let ip = server.host.ip();
    let from_client = format!("saw {}", client.host.ip());
    assert_eq!(say(&client, ip, 7000, &[])["answer"], from_client);
    assert_eq!(say(&client, ip, 7001, &[])["answer"], "saw 127.0.0.1", "loopback has no other callers");
    let seen = outside.curl(&[&format!("telnet://{ip}:7000"), "--max-time", "2"]).text();
    assert_eq!(seen, format!("saw {}", outside.ip()));
    // Its own calls, in and out, work as before.
    assert_eq!(say(&server, "127.0.0.1", 7001, &[])["answer"], "saw 127.0.0.1");
    assert_eq!(say(&server, ip, 7000, &[])["answer"], format!("saw {ip}"));
}
