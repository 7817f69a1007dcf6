//! DNS for the application: names of the mesh lead to the mesh, whatever nameserver is configured.

use super::{World, files, workload};
use crate::support::{Pod, Stack};

#[test]
fn a_service_without_an_address_of_its_own_is_reached_by_every_form_of_its_name() {
    let world = World::start(Stack::Dual);
    world.mesh.service("web", &[("p8080", 80, "")]);
    let server = world.pod(workload("web", &[(8080, "")]));
    let _app = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    let host = std::rc::Rc::new(world.network.host("client"));
    // Nobody answers there, and nobody has to.
    host.etc("resolv.conf", "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n");
    let client = workload("client", &[]).setting("intercept", "redirect").setting("dns", "127.0.0.1:15053");
    let client = Pod::start_on(&world.mesh, host, client, &["--capture-dns"]);
    for name in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "WEB.Shop"] {
        for family in ["-4", "-6"] {
            let answer = client.curl(&[family, &format!("http://{name}/hello.txt"), "--connect-timeout", "5"]);
            assert_eq!(answer.text(), "hello\n", "{name} {family}: {}", answer.message);
        }
    }
    let mutual = [("destination", "web.shop:80"), ("tls", "mutual"), ("peer", "spiffe://cluster.local/ns/shop/sa/web")];
    assert!(client.sidecar.metric("pillion_requests_total", &mutual) >= 9.0);
}
