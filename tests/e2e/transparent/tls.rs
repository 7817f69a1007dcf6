//! TLS that the application itself speaks: nobody but the two of them takes part in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{World, detections, nginx_in, workload};
use crate::support::{Curl, Host, Stack, run, tool, until};

/// A key and a certificate that nobody else trusts.
struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    fn new(folder: &Path) -> Self {
        let own = Self { folder: folder.to_owned() };
        let mut command = Command::new(tool("openssl", "openssl"));
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command.args(["-subj", "/CN=app.example", "-addext", "subjectAltName=DNS:app.example"]);
        run(command.arg("-out").arg(own.file()).arg("-keyout").arg(folder.join("key.pem")));
        own
    }

    fn file(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// The body of nginx's `server` block, with more ports. It speaks TLS 1.2, which nobody in the mesh does.
    fn site(&self, more_ports: &[u16]) -> String {
        let folder = self.folder.display();
        let ports: String = more_ports.iter().map(|port| format!("listen 127.0.0.1:{port} ssl;\n")).collect();
        format!(
            "{ports}ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;\n\
             ssl_protocols TLSv1.2; \
             location / {{ return 200 \"$ssl_protocol $ssl_server_name\"; }}"
        )
    }

    /// Asks for `https://app.example:PORT/` at an address; nobody else's certificate will do.
    fn ask(&self, from: &Host, address: &str, port: u16) -> Curl {
        self.ask_with(from, address, port, &[])
    }

    /// The same with more arguments of curl.
    fn ask_with(&self, from: &Host, address: &str, port: u16, more: &[&str]) -> Curl {
        let resolve = format!("app.example:{port}:{address}");
        let root = self.file().display().to_string();
        let url = format!("https://app.example:{port}/");
        from.curl(&[&["--cacert", &root, "--resolve", &resolve, &url], more].concat())
    }
}

#[test]
fn an_applications_own_tls_passes_untouched_undeclared_and_declared_inside_the_meshs() {
    let world = World::start(Stack::V4);
    world.service("site", "10.96.0.10", &[(443, 8443, ""), (444, 8444, "https")]);
    let server = world.pod(workload("site", &[(8443, ""), (8444, "protocol: tls")]));
    let client = world.pod(workload("client", &[]));
    let certificate = Certificate::new(world.mesh.scratch());
    let _site = nginx_in(&server, &world.mesh, "127.0.0.1:8443 ssl", &certificate.site(&[8444]));
    let ip = server.host.ip().to_string();
    for (address, port, destination) in [
        ("10.96.0.10", 443, "site.shop:443".to_owned()),
        ("10.96.0.10", 444, "site.shop:444".to_owned()),
        (&ip, 8443, format!("{ip}:8443")),
        (&ip, 8444, format!("{ip}:8444")),
    ] {
        let answer = certificate.ask(&client.host, address, port);
        assert_eq!(answer.text(), "TLSv1.2 app.example", "{destination}: {}", answer.message);
        let labels = [("destination", destination.as_str()), ("tls", "mutual"), ("reason", "")];
        let count = || client.sidecar.metric("pillion_tcp_connections_total", &labels);
        until(&format!("{destination} went through the mesh"), || count() == 1.0);
    }
    assert_eq!(detections(&client, "tls"), 2.0, "declared TLS is not looked at");
    assert_eq!(server.sidecar.metric("pillion_requests_total", &[]), 0.0, "nobody has read a request");
}

#[test]
fn from_outside_the_mesh_it_passes_where_that_is_permitted_and_is_refused_elsewhere() {
    let world = World::start(Stack::V4);
    let permissive = [(8443, "access: permissive"), (8444, "access: permissive, protocol: tls")];
    let strict = [(8445, ""), (8446, "protocol: tls")];
    let server = world.pod(workload("site", &[permissive, strict].concat()));
    let outside = world.network.host("outside");
    let certificate = Certificate::new(world.mesh.scratch());
    let _site = nginx_in(&server, &world.mesh, "127.0.0.1:8443 ssl", &certificate.site(&[8444, 8445, 8446]));
    let ip = server.host.ip().to_string();
    for (port, _) in permissive {
        let answer = certificate.ask(&outside, &ip, port);
        assert_eq!(answer.text(), "TLSv1.2 app.example", "{port}: {}", answer.message);
        let labels = [("destination", format!("inbound:{port}")), ("tls", "none".to_owned())];
        let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
        until("it is counted", || server.sidecar.metric("pillion_tcp_connections_total", &labels) == 1.0);
    }
    for (port, _) in strict {
        // Not even where any certificate would do: it is the mesh's own TLS that answers on an undeclared port.
        for more in [&[][..], &["--insecure"]] {
            let answer = certificate.ask_with(&outside, &ip, port, more);
            assert_eq!((answer.status, answer.text().as_str()), (0, ""), "{port} {more:?}");
            assert_ne!(answer.exit, 0, "{port} {more:?}");
        }
    }
    for (reason, times) in [("tls_refused_by_peer", 1.0), ("tls_no_certificate", 1.0), ("tls_refused", 2.0)] {
        let count = || server.sidecar.metric("pillion_connections_refused_total", &[("reason", reason)]);
        until(&format!("{reason} is counted"), || count() == times);
    }
}
