//! What programs, peers and strangers do that nobody would do on purpose, or only on purpose.

use super::{World, files, lines, say, workload};
use crate::security::certificate;
use crate::support::{Process, Stack, in_workspace, python, run, until};

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

#[test]
fn link_local_addresses_are_reached_as_without_a_mesh() {
    let world = World::start(Stack::Dual);
    let client = world.pod(workload("client", &[]));
    let outside = world.network.host("outside");
    let hosts = [&client.host, &outside];
    let shown = hosts.map(|host| {
        let show = || host.ip_command("-6 -oneline address show dev eth0 scope link");
        until("its link-local address may be used", || show().contains("fe80::") && !show().contains("tentative"));
        show()
    });
    let address = shown[1].split_whitespace().find(|word| word.starts_with("fe80::")).expect("an address");
    let address = format!("{}%eth0", address.split('/').next().expect("not empty"));
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/lines.py")).args(["[::]:7000", "hello"]);
    let mut server = Process::spawn("lines.py", &mut outside.wrap(&command));
    server.ready();
    assert_eq!(say(&client, address, 7000, &[])["answer"], "hello");
}

#[test]
fn a_request_of_http_1_0_needs_no_host() {
    let world = World::start(Stack::V4);
    world.service("web", "10.96.0.10", &[(80, 8080, ""), (81, 8080, "http")]);
    let server = world.pod(workload("web", &[(8080, "")]));
    let client = world.pod(workload("client", &[]));
    let _web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    for port in [80, 81] {
        let said = say(&client, "10.96.0.10", port, &["GET /hello.txt HTTP/1.0\r\n\r\n"]);
        assert!(said["answer"].as_str().is_some_and(|answer| answer.starts_with("HTTP/1.0 200 ")), "{said}");
    }
}
