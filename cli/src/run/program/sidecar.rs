//! The program's sidecar: in the machine's network, with one foot in the program's.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use pillion_control_plane::ca::join_token;
use serde_json::json;

use super::super::telemetry::Telemetry;
use super::{
    control_plane::Addresses,
    home::Home,
    register::{MESH_PORT, Record},
};
use crate::{
    certs::files::replace,
    child::{Capabilities, Family, LogMode, Powers, Spec},
};

/// How long a join token may be used. Tokens are made anew at half of it, so that a sidecar can always be started again.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// When tokens are made anew.
pub(super) const TOKEN_RENEWAL: Duration = Duration::from_secs(1800);
const DEADLINE: Duration = Duration::from_secs(20);
const NAME: &str = "sidecar";

/// A running sidecar.
pub(super) struct Sidecar {
    family: Family,
    telemetry: Telemetry,
}

impl Sidecar {
    /// Not started yet.
    pub(super) fn new(log: LogMode, telemetry: Telemetry) -> anyhow::Result<Self> {
        Ok(Self { family: Family::new(log).context("cannot find our own executable")?, telemetry })
    }

    /// Starts it and waits until it serves: its ports are open, its identity is issued, its configuration is there.
    pub(super) async fn start(
        &mut self,
        home: &Home,
        record: &Record,
        network: &Arc<OwnedFd>,
        control_plane: Addresses,
        grace: Duration,
    ) -> anyhow::Result<()> {
        write_token(home, record)?;
        let mut settings = json!({
            "workload": record.workload(),
            "namespace": record.namespace,
            "service_account": record.name,
            "control_plane": control_plane.listen.to_string(),
            "control_plane_root": home.state().join("root.pem"),
            "join_token_file": token_file(home, record),
            "state": home.state().join("sidecars").join("kept"),
            "mesh": SocketAddr::new(record.address.into(), MESH_PORT).to_string(),
            "intercept": "redirect",
            "outbound_http": "127.0.0.1:15001",
            "dns": "127.0.0.1:15053",
            "application_namespace": format!("/proc/self/fd/{}", network.as_raw_fd()),
            "admin": "127.0.0.1:0",
            "health": "127.0.0.1:0",
            "metrics": "127.0.0.1:0",
            "drain_deadline": format!("{}ms", grace.as_millis()),
        });
        if let Some(settings) = settings.as_object_mut() {
            self.telemetry.add_to(settings);
        }
        let file = home.state().join("sidecars").join(format!("{}.json", record.file_name()));
        replace(&file, &format!("{settings:#}\n"), 0o600)?;
        self.family.start(Spec {
            name: NAME.to_owned(),
            arguments: vec!["proxy".into(), "--bootstrap".into(), file.into()],
            restart: true,
            // To enter the namespace, and to mark its sockets there.
            powers: Powers {
                capabilities: Capabilities::SYS_ADMIN | Capabilities::NET_ADMIN,
                files: vec![Arc::clone(network)],
            },
        });
        self.family.ready(DEADLINE).await.context("the sidecar did not start")
    }

    /// Asks it to finish what is under way, and waits until it is gone.
    pub(super) async fn stop(mut self, grace: Duration) {
        self.family.stop_all("", grace).await;
    }

    /// Where its admin pages are.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.family.status(NAME)?.address("admin")
    }
}

/// Makes the sidecar's join token anew.
pub(super) fn write_token(home: &Home, record: &Record) -> anyhow::Result<()> {
    let token = join_token::mint(&home.state(), &record.namespace, &record.name, TOKEN_LIFETIME)
        .with_context(|| format!("no join token for {}", record.workload()))?;
    Ok(replace(&token_file(home, record), &token, 0o600)?)
}

fn token_file(home: &Home, record: &Record) -> PathBuf {
    home.state().join("sidecars").join(format!("{}.token", record.file_name()))
}
