//! What programs, peers and strangers do that nobody would do on purpose, or only on purpose.

use super::{World, lines, workload};
use crate::security::certificate;
use crate::support::{Stack, in_workspace, python, run};

#[test]
fn a_peer_is_tunnelled_to_the_workloads_own_addresses_and_never_to_loopback_or_elsewhere() {
    let world = World::start(Stack::Dual);
    let server = world.pod(workload("server", &[]));
    let outside = world.network.host("outside");
    let _hidden = [lines(&server, "127.0.0.1:7003", ""), lines(&server, "[::1]:7004", "")];
    let _open = lines(&server, "0.0.0.0:7005", "");
    // With this, every address can be bound to.
    run(server.host.command("sysctl").args(["-w", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1"]));
    let peer = certificate(&world.mesh, &world.mesh.state(), "rogue", &[]);
    let ip = server.host.ip();
    let connect = |target: &str| {
        let mut command = python();
        command.arg(in_workspace("tests/e2e/apps/tunnel.py")).args([&format!("{ip}:15008"), target]);
        command.arg(world.mesh.root()).arg(&peer.certificate).arg(&peer.key);
        let said: serde_json::Value = serde_json::from_str(&run(&mut outside.wrap(&command))).expect("JSON");
        said["status"].as_str().expect("a status").to_owned()
    };
    for open in [format!("{ip}:7005"), format!("[::ffff:{ip}]:7005")] {
        assert_eq!(connect(&open), "200", "{open}");
    }
    let elsewhere = format!("{}:7005", outside.ip());
    for closed in [
        "127.0.0.1:7003",
        "127.1.2.3:7003",
        "0.0.0.0:7003",
        "[::]:7004",
        "[::1]:7004",
        "[::ffff:127.0.0.1]:7003",
        "[::ffff:0.0.0.0]:7003",
        "224.0.0.1:7003",
        "255.255.255.255:7003",
        &elsewhere,
    ] {
        assert_eq!(connect(closed), "404", "{closed}");
    }
}
