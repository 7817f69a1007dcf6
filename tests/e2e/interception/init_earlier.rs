//! Connections that are older than the rules.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{BACKENDS, Scene};
use crate::support::{Process, in_workspace, python};

#[test]
fn connections_that_were_open_before_the_rules_go_on_whoever_speaks_next() {
    for backend in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            // The kernel forgets connections when nobody wants them tracked, so each has a namespace of its own.
            let scene = Scene::with_inbound(if mode == "tproxy" { "transparent" } else { "tcp" });
            let mut open = [Earlier::start(&scene, false), Earlier::start(&scene, true)];
            scene.init(&format!("--backend {backend} --mode {mode}"));
            for earlier in &mut open {
                assert_eq!(earlier.broken(), json!({}), "{backend}, {mode}");
            }
        }
    }
}

struct Earlier(Process);

impl Earlier {
    fn start(scene: &Scene, is_ipv6: bool) -> Self {
        let mut command = python();
        command.arg(in_workspace("tests/e2e/apps/earlier.py")).args([scene.pod.path(), scene.other.path()]);
        for host in [&scene.pod, &scene.other] {
            let ip = if is_ipv6 { host.v6.map(|ip| ip.to_string()) } else { host.v4.map(|ip| ip.to_string()) };
            command.arg(ip.expect("both families"));
        }
        let mut process = Process::spawn("earlier.py", &mut command);
        process.ready();
        Self(process)
    }

    fn broken(&mut self) -> Value {
        self.0.signal(Signal::SIGUSR1);
        self.0.first_line("its verdict", |line| {
            let said: Value = serde_json::from_str(line).ok()?;
            (said["event"] == "done").then(|| said["broken"].clone())
        })
    }
}
