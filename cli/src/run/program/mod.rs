//! `pillion run --name NAME -- COMMAND`: an unmodified program as a workload of this machine's mesh.
//!
//! ```text
//! pillion run            user namespace of its own when it is not root; the machine's network
//!  ├─ thread             the program's network namespace: what it starts is in there
//!  │   └─ COMMAND        (through `pillion launch`, which becomes it)
//!  ├─ sidecar            the machine's network, with listeners in the program's
//!  ├─ control plane      if no other program of this home runs it
//!  └─ keeper             cleans up when we are killed
//! ```
//!
//! Redirect rules come after the listeners that they lead to, the program after both; the sidecar ends after the program.

mod control_plane;
mod home;
pub(crate) mod keeper;
pub(crate) mod launch;
mod life;
mod log;
mod namespaces;
mod ports;
mod processes;
mod register;
mod sidecar;
mod signals;

use std::{ffi::OsString, io::Write as _, path::PathBuf, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use pillion_wire::label::is_label;

use super::telemetry::Telemetry;
use crate::child::LogMode;
use control_plane::ControlPlane;
use home::Home;
pub(crate) use home::default_path as default_home;
use keeper::Keeper;
use life::Life;
use log::Log;
use namespaces::Network;
use ports::Port;
use sidecar::Sidecar;
use signals::Blocked;

/// What `env`, `nohup` and `timeout` say of their own failures.
const OUR_FAILURE: u8 = 125;

pub(super) const HELP: &str = "\
A program in the mesh

  pillion run --name hello --port 8080 -- python3 -m http.server 8080
  pillion run --name client -- curl http://hello:8080/

The program runs unchanged in a network namespace of its own, where all its TCP connections and DNS queries go through a
sidecar. It reaches other programs by NAME, NAME.NAMESPACE or NAME.NAMESPACE.svc.cluster.local, in mutual TLS of which it
knows nothing, and everything else (the Internet) as before. Several programs of one name share its load. All programs
of one home (--home) are one mesh; put routes and other documents into its documents/ folder.

No root is needed where unprivileged user namespaces are allowed; else it says what is missing. `ip` (iproute2) and `nft`
(nftables) must be installed.

Standard input, output, error and the terminal are the program's own. Its status is ours: 128 and the signal's number
when it died of one; 125 when pillion itself failed, 126 and 127 when the command cannot be run or found. SIGTERM, SIGHUP,
SIGINT, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH are passed on. When the program ends, or pillion is killed, all that it
started ends too.

What is different inside
  - 127.0.0.1 is the program's own: services of this machine are not there. Run them with pillion as well, or let them
    listen on another address of the machine, which the program reaches as usual.
  - UDP other than DNS and ICMP (ping) go nowhere.
  - Names are resolved by files and DNS. nscd and systemd-resolved are hidden from the C library, since they ask from
    outside; a program that asks another one over D-Bus, or a DNS server over HTTPS or TLS, does not see the mesh.
  - Without root, programs that change the user (sudo, su) do not work.";

/// Settings of `pillion run --name`.
#[derive(Debug, Args)]
#[command(next_help_heading = "A program")]
pub(super) struct Program {
    /// Name of the program in the mesh: its Service, its service account, its label `app`.
    #[arg(long, requires = "command")]
    name: Option<String>,
    /// A port on which the program listens, on any address of its own. Callers dial SERVICE_PORT (default: the same).
    /// PROTOCOL: http, h2c, grpc, tcp, tls (default: detected). May be repeated, and left out for pure clients.
    #[arg(long = "port", value_name = "[SERVICE_PORT:]PORT[/PROTOCOL]", requires = "name")]
    ports: Vec<Port>,
    /// The program's namespace in the mesh.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Folder of the mesh: its documents, keys and logs. Default: $XDG_RUNTIME_DIR/pillion, else /tmp/pillion-UID.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Show what happens, and the logs of sidecar and control plane, on standard error.
    #[arg(long, short)]
    verbose: bool,
    /// The program and its arguments.
    #[arg(last = true, value_name = "COMMAND", requires = "name")]
    command: Vec<OsString>,
}

impl Program {
    /// Whether a program is to be run.
    pub(super) const fn is_given(&self) -> bool {
        self.name.is_some()
    }
}

/// Runs the program until it ends; its status is ours.
pub(super) fn run(settings: Program, grace: Duration, telemetry: Telemetry) -> ExitCode {
    match start(settings, grace, telemetry) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&error);
            ExitCode::from(OUR_FAILURE)
        }
    }
}

fn complain(error: &anyhow::Error) {
    let _closed = writeln!(std::io::stderr(), "pillion: {error:#}");
}

/// All that must happen while there is one thread only, then the rest.
fn start(settings: Program, grace: Duration, telemetry: Telemetry) -> anyhow::Result<u8> {
    let name = settings.name.clone().unwrap_or_default();
    for (what, text) in [("--name", &name), ("--namespace", &settings.namespace)] {
        ensure!(is_label(text), "{what} `{text}` is not a DNS label: lower-case letters, digits and -, at most 63");
    }
    for (position, port) in settings.ports.iter().enumerate() {
        let twice = settings.ports.iter().skip(position + 1).any(|other| other.service == port.service);
        ensure!(!twice, "--port {} is there twice", port.service);
    }
    let blocked = Blocked::block().context("cannot block signals")?;
    namespaces::become_capable()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(Box::pin(serve(&settings, &name, grace, &blocked, telemetry)));
    runtime.shutdown_background();
    outcome
}

/// From an empty home to an empty home.
async fn serve(
    settings: &Program,
    name: &str,
    grace: Duration,
    blocked: &Blocked,
    telemetry: Telemetry,
) -> anyhow::Result<u8> {
    let mut signals = blocked.receive().context("cannot listen for signals")?;
    let home = Home::open(settings.home.as_deref())?;
    let network = Arc::new(Network::make()?);
    let entry = register::enter(&home, &settings.namespace, name, &settings.ports)?;
    let keeper = Keeper::start(&home, &network.file)?;
    let log = if settings.verbose { None } else { Some(Log::open(&home, &entry.record)?) };
    let mode = log.as_ref().map_or(LogMode::Show, Log::mode);
    let mut control_plane = ControlPlane::new(&home, mode.clone())?;
    let mut sidecar = Sidecar::new(mode, telemetry)?;
    let life = Life { settings, home: &home, network: &network, entry: &entry, grace, blocked };
    let outcome = life.live(&mut sidecar, &mut signals, pin!(control_plane.run())).await;
    // Whatever fails from here on, the rest is done too.
    let left = register::leave(&home, &entry.record);
    let ended = life.end_the_rest(&mut signals).await;
    // It drains for as long as it may, and a little longer until it is killed.
    sidecar.stop(grace + Duration::from_secs(2)).await;
    control_plane.stop().await;
    let dismissed = keeper.dismiss().context("lost sight of the process that cleans up after us");
    for trouble in [left, ended, dismissed].into_iter().filter_map(Result::err) {
        complain(&trouble);
    }
    with_log(outcome, log.as_ref())
}

/// What `live` returned, with the end of the log when nobody saw that.
fn with_log<T>(outcome: anyhow::Result<T>, log: Option<&Log>) -> anyhow::Result<T> {
    outcome.map_err(|error| match log {
        Some(log) => error.context(format!("see {}; its end:\n{}\n", log.path().display(), log.tail())),
        None => error,
    })
}
